import pytest

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.evaluation.protocols import PROTOCOLS, get_protocol

FIFTEEN, FIVE, NINE = (ClassSet.generic(count) for count in (15, 5, 9))


@pytest.mark.parametrize(
    ("name", "classes", "averaged", "ignored_truth", "ignored_prediction", "absent", "size"),
    [
        ("mfnet", NINE, range(9), (), (), "skip", (480, 640)),
        ("mfnet-absent-zero", NINE, range(9), (), (), "zero", (480, 640)),
        ("mfnet-no-unlabeled", NINE, range(1, 9), (), (), "skip", (480, 640)),
        ("mfnet-authors", NINE, range(1, 9), (0,), (0,), "zero", (480, 640)),
        ("pst900", FIVE, range(5), (), (), "skip", (720, 1280)),
        ("pst900-480x640", FIVE, range(5), (), (), "skip", (480, 640)),
        ("pst900-360x640", FIVE, range(5), (), (), "skip", (360, 640)),
        ("fmb", FIFTEEN, range(1, 15), (0,), (), "skip", (600, 800)),
        ("fmb-15", FIFTEEN, range(15), (), (), "skip", (600, 800)),
        ("fmb-no-bicycle", FIFTEEN, [*range(1, 13), 14], (0,), (), "skip", (600, 800)),
        ("native", FIVE, range(5), (), (), "skip", None),
    ],
)
def test_what_decides_each_figure(name, classes, averaged, ignored_truth, ignored_prediction, absent, size):
    protocol = get_protocol(name)
    protocol.check(classes)
    assert protocol.averaged(len(classes)) == tuple(averaged)
    assert protocol.ignored_truth == ignored_truth
    assert protocol.ignored_prediction == ignored_prediction
    assert protocol.absent == absent
    assert protocol.size == size


def test_the_table_above_is_complete():
    assert [protocol.name for protocol in PROTOCOLS] == [
        "mfnet",
        "mfnet-absent-zero",
        "mfnet-no-unlabeled",
        "mfnet-authors",
        "pst900",
        "pst900-480x640",
        "pst900-360x640",
        "fmb",
        "fmb-15",
        "fmb-no-bicycle",
        "native",
    ]
    assert all(get_protocol(protocol.name) is protocol for protocol in PROTOCOLS)


def test_unknown_name_lists_those_there_are():
    with pytest.raises(InputError, match=r"'mfnett'.*mfnet-absent-zero.*native"):
        get_protocol("mfnett")


def test_misfit_names_both_counts_and_what_fits():
    with pytest.raises(
        InputError, match=r"fmb is for 15 classes, but the data has 9 .*that fit: mfnet,.*native"
    ):
        get_protocol("fmb").check(NINE)


def test_line_says_all_that_decides():
    classes = ClassSet.generic(15)
    line = get_protocol("fmb-no-bicycle").line(classes)
    assert line == (
        "fmb-no-bicycle: mean over 13 of 15 classes (without class_0, class_13); truth class_0, 255 ignored; "
        "absent classes left out; scored at 600x800"
    )
    assert "predicted class_0 ignored; absent classes count 0" in get_protocol("mfnet-authors").line(NINE)
    assert "scored at the label's size" in get_protocol("native").line(NINE)
