"""Tar headers: what the standard library writes is found; hostile and damaged tars are refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from efnet.core.errors import InputError
from efnet.data.archive import file_bytes, members_of, scan_tar, tar_of

BLOCK = tarfile.BLOCKSIZE
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def tar_bytes(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT, **fields: object) -> bytes:
    """A tar; `fields` go into the header of each file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def tar(tmp_path) -> Path:
    return tmp_path / "a.tar"


parts = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\:\0", min_codepoint=32), min_size=1, max_size=70
)
names = st.lists(parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(names, st.binary(max_size=1500), max_size=5), st.sampled_from(FORMATS[1:]))
@example({"0.tar/0": b"x"}, tarfile.PAX_FORMAT)
@settings(max_examples=60)
def test_finds_what_tarfile_wrote(tmp_path_factory, files, form):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    path.write_bytes(tar_bytes(files, form))
    members = scan_tar(path)
    assert list(members) == list(files)
    content = path.read_bytes()
    for name, member in members.items():
        assert content[member.offset : member.offset + member.size] == files[name]
        assert file_bytes(path / name) == files[name]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "name", ["a.png", "./a.png", "b/" * 40 + "a.png", "n" * 99, "d" * 60 + "/" + "n" * 90]
)
def test_names(tar, form, name):
    tar.write_bytes(tar_bytes({name: b"x"}, form))
    assert list(scan_tar(tar)) == [name.removeprefix("./")]


def test_large_numbers_folders_and_no_files(tar):
    tar.write_bytes(tar_bytes({"a": b"12345"}, tarfile.GNU_FORMAT, mtime=1 << 40, uid=1 << 30))
    assert scan_tar(tar)["a"].size == 5
    tar.write_bytes(tar_bytes({"folder": b""}, type=tarfile.DIRTYPE))
    assert scan_tar(tar) == {}
    tar.write_bytes(tar_bytes({}))
    assert scan_tar(tar) == {}


GOOD = tar_bytes({"a.rgb.png": b"a" * 700, "a.thermal.png": b"b" * 600})


@given(st.integers(0, 2 * BLOCK + 2 * 2 * BLOCK), st.binary(min_size=1, max_size=40))
@settings(max_examples=300)
def test_altered_tars_give_files_within_them_or_an_error(tmp_path_factory, place, noise):
    path = tmp_path_factory.getbasetemp() / "altered.tar"
    content = bytearray(GOOD)
    content[place : place + len(noise)] = noise
    path.write_bytes(content)
    try:
        members = scan_tar(path)
    except InputError:
        members = {}
    assert all(
        0 <= member.offset <= member.offset + member.size <= len(content) for member in members.values()
    )


@pytest.mark.parametrize("length", range(1, 2 + 6 * BLOCK, 257))
def test_cut_off_at_any_place(tar, length):
    """Between two files too: there is no end mark."""
    tar.write_bytes(GOOD[:length])
    with pytest.raises(InputError, match=r"a\.tar: .*(cut off|not a tar).*; copy it again"):
        scan_tar(tar)


@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/etc/passwd", "C:/a.png", "a\\b.png", "a\nb.png", "..", "x/.."]
)
@pytest.mark.parametrize("form", FORMATS)
def test_names_that_lead_out(tar, name, form):
    tar.write_bytes(tar_bytes({name: b"x"}, form))
    with pytest.raises(InputError, match="which leads out of it or is not a name"):
        scan_tar(tar)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "an entry of kind b'3'"),
        (tarfile.FIFOTYPE, "an entry of kind b'6'"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "an entry of kind b'Z'"),
    ],
)
def test_what_is_no_file(tar, kind, what):
    tar.write_bytes(tar_bytes({"a.png": b""}, type=kind, linkname="/etc/passwd"))
    with pytest.raises(InputError, match=f"holds {what}; copy it again"):
        scan_tar(tar)


def test_twice_the_same_name(tar):
    stream = tar_bytes({"a.png": b"1"})[: 2 * BLOCK] + tar_bytes({"./a.png": b"2"})
    tar.write_bytes(stream)
    with pytest.raises(InputError, match=r"holds 'a\.png' twice"):
        scan_tar(tar)


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"GNU.sparse.major": "1"}, "a sparse file"),
        ({"path": "../x"}, "leads out"),
        ({"size": "99999999999"}, "cut off in the middle"),
        ({"size": "-5"}, "a pax header makes no sense"),
        ({"size": "1x"}, "a pax header makes no sense"),
        ({"comment": "x" * 70_000}, "has a header of"),
    ],
)
def test_pax_headers(tar, headers, what):
    tar.write_bytes(tar_bytes({"a.png": b"x"}, pax_headers=headers))
    with pytest.raises(InputError, match=what):
        scan_tar(tar)


def described(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """A tar with one file, `short.png`, behind a header of `kind` with `content`."""
    info = tarfile.TarInfo("extended")
    info.type, info.size = kind, len(content) if size is None else size
    padded = content + bytes(-len(content) % BLOCK)
    return info.tobuf(tarfile.USTAR_FORMAT) + padded + tar_bytes({"short.png": b"x"}, tarfile.USTAR_FORMAT)


PATH = b"22 path=long/name.png\n"
MTIME = b"11 mtime=5\n"


@pytest.mark.parametrize("content", [PATH, MTIME + PATH, b"18 comment=a=\xff\n b\n" + PATH])
def test_pax_records(tar, content):
    """Records with a value that is not text too, such as extended attributes."""
    tar.write_bytes(described(tarfile.XHDTYPE, content))
    assert list(scan_tar(tar)) == ["long/name.png"]


@pytest.mark.parametrize(
    "content",
    [
        b"23" + PATH[2:],  # the length is larger than the header
        b"21" + PATH[2:],  # and smaller than the record
        b"3" + PATH[2:],
        b"0" + PATH[2:],
        b"-9" + PATH[2:],
        PATH.replace(b"22 ", b"22"),
        PATH.replace(b"=", b":"),
        PATH.replace(b"path", b""),
        b"99 mtime=5\n" + PATH,
        MTIME[:-1] + PATH,
        b"mtime\n" + PATH,
        PATH + b"x",
        PATH[:-1],
        PATH[:9],
        b"22 path=long/name\xff\xfeng\n",
        b"21 hdrcharset=BINARY\n" + b"22 path=long/name\xff\xfeng\n",
    ],
)
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_damaged_pax_record_is_never_ignored(tar, content, kind):
    """Else the file would get the name in the next header."""
    tar.write_bytes(described(kind, content))
    with pytest.raises(InputError, match=r"a\.tar: .*damaged \(.*; copy it again from its source"):
        scan_tar(tar)


def test_a_damaged_pax_record_of_a_later_file(tar):
    tar.write_bytes(tar_bytes({"first.png": b"1"})[: 2 * BLOCK] + described(tarfile.XHDTYPE, PATH[:-1]))
    with pytest.raises(InputError, match="a pax header makes no sense"):
        scan_tar(tar)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (b"long/name.png", None),  # no zero byte at the end
        (b"long/name.png\0", 9),  # the name is longer than its size
        (b"long/\0name.png\0", None),
        (b"\0", None),
        (b"", None),
    ],
)
def test_a_damaged_long_name_is_never_shortened(tar, content, size):
    tar.write_bytes(described(tarfile.GNUTYPE_LONGNAME, content, size))
    with pytest.raises(InputError, match=r"a GNU long name makes no sense.*; copy it again from its source"):
        scan_tar(tar)


def test_long_names_that_are_cut_off(tar):
    whole = described(tarfile.GNUTYPE_LONGNAME, b"long/name.png\0")
    tar.write_bytes(whole)
    assert list(scan_tar(tar)) == ["long/name.png"]
    for length in (BLOCK + 5, 2 * BLOCK, 2 * BLOCK + 100):
        tar.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is not a tar file, or is damaged"):
            scan_tar(tar)


def test_two_headers_that_name_one_file(tar):
    first = described(tarfile.XHDTYPE, PATH)[: 2 * BLOCK]
    tar.write_bytes(first + described(tarfile.GNUTYPE_LONGNAME, b"other.png\0"))
    with pytest.raises(InputError, match="two headers name the same file"):
        scan_tar(tar)


def test_headers_without_end(tar):
    """Neither a chain of long names nor the map of a sparse file is read to its end."""
    name = tar_bytes({"n" * 150: b""}, tarfile.GNU_FORMAT)[: 2 * BLOCK]
    tar.write_bytes(name * 5000)
    with pytest.raises(InputError, match="has a header of more than 65536 bytes"):
        scan_tar(tar)
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    tar.write_bytes(tar_bytes({"a.png": b"9999999\n" + b"1\n" * 500_000}, pax_headers=sparse))
    with pytest.raises(InputError, match="has a header of more than 65536 bytes"):
        scan_tar(tar)


def test_other_files(tar, tmp_path):
    tar.write_bytes(b"")
    with pytest.raises(InputError, match="ends without an end mark"):
        scan_tar(tar)
    with pytest.raises(InputError, match="cannot be read"):
        members_of(tmp_path / "none.tar")
    tar.write_bytes(b"\x89PNG" * 1000)
    with pytest.raises(InputError, match="is not a tar file, or is damaged"):
        scan_tar(tar)


def test_a_folder_may_be_named_like_a_tar(tmp_path):
    folder = tmp_path / "mfnet.tar"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"plain")
    assert tar_of(folder / "a.png") is None
    assert file_bytes(folder / "a.png") == b"plain"


def test_a_file_that_is_not_in_the_tar(tar):
    tar.write_bytes(GOOD)
    with pytest.raises(InputError, match=r"b\.png: there is no such file in the tar"):
        file_bytes(tar / "b.png")
