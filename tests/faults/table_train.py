"""Bad configurations, runs and options of `efnet train` and `efnet experiment`."""

from __future__ import annotations

import fault_pictures as pictures
from fault_case import Case, both, cut, flipped, folder, gone, holds

LINE = (
    "train --dataset mfnet --root mfnet --out out --model efnet_tiny --size 32x32 --epochs 1 --workers 0 "
    "--device cpu --quiet"
)
RESUME = "train --out run --resume --quiet"
STUDY = "experiment run table6 --out exp --budget tiny --device cpu --quiet"
IMAGE, LABEL = "mfnet/images/00001D.png", "mfnet/labels/00001D.png"


def options(name: str, words: str, *says: str) -> Case:
    """These options are added to a good line."""
    return Case(name, f"{LINE} {words}", says)


def yaml(name: str, text: str | bytes, *says: str) -> Case:
    """A configuration file says this."""
    return Case(f"--config {name}", f"{LINE} --config c.yaml", says, holds("c.yaml", text))


CASES = [
    options("a rate of nothing", "--lr 0", "optimizer.lr is 0", "positive"),
    options("a rate below nothing", "--lr -1", "optimizer.lr is -1", "positive"),
    options("a rate of NaN", "--lr nan", "optimizer.lr", "a number, got nan"),
    options("an infinite rate", "--lr inf", "optimizer.lr", "a number, got inf"),
    options("a rate in words", "--lr fast", "optimizer.lr", "a number"),
    options("a decay of NaN", "--weight-decay nan", "optimizer.weight_decay", "a number, got nan"),
    options("a decay below nothing", "--weight-decay -1", "optimizer.weight_decay is -1", "0 or more"),
    options("no epochs", "--epochs 0", "schedule.epochs is 0", "1 or more"),
    options("half an epoch", "--epochs 0.5", "schedule.epochs", "a whole number"),
    options("no batch", "--batch-size 0", "data.batch_size is 0", "1 or more"),
    options("accumulation of none", "--accumulate 0", "data.accumulate is 0", "1 or more"),
    options("workers below none", "--workers -1", "data.workers is -1", "0 or more"),
    options("a size below the least", "--size 16x16", "data.size is 16x16", "at least 32x32"),
    options("a size of one number", "--size 64", "data.size"),
    options("a thermal range that is none", "--thermal-scale 9,1", "data.thermal_scale", "low < high"),
    options("a thermal range of NaN", "--thermal-scale [.nan,1.0]", "data.thermal_scale", "low < high"),
    options("a tau above 1", "--tau 0.3,0.7,1.5", "tau", "0 to 1"),
    options("two taus", "--tau 0.3,0.7", "network.tau"),
    options("an unknown model", "--model resnet", "resnet", "efnet_light"),
    options("an unknown fusion", "--fusion sum", "network.fusion", "mif"),
    options("an unknown recipe", "--recipe best", "best", "paper"),
    options("an unknown protocol", "--protocol best", "best", "mfnet"),
    options("an unknown split", "--train-split most", "'most'", "train"),
    options("an unknown device", "--device toaster", "toaster", "cpu"),
    options("an unknown option", "--learning-rate 1", "--learning-rate"),
    options("a seed below none", "--seed -1", "seed is -1", "0 or more"),
    options("a seed of 70 bits", f"--seed {2**70}", "seed is", "give"),
    options("betas of two", "--optimizer.betas [2.0,2.0]", "optimizer.betas", "below 1"),
    options("a clip of nothing", "--optimizer.clip 0", "optimizer.clip is 0", "positive"),
    options("a power of NaN", "--schedule.power nan", "schedule.power", "a number, got nan"),
    options("a warm-up of NaN", "--warmup-epochs nan", "schedule.warmup_epochs", "a number, got nan"),
    options("a chance above certain", "--augment.flip 2", "augment.flip"),
    options("stochastic depth of all", "--network.drop_path 1", "drop_path", "below 1"),
    options("weights that are not there", "--init w.pth", "w.pth", "no such folder"),
    Case("no out", "train --dataset mfnet --root mfnet", ("--out", "required")),
    Case(
        "an out that is a file", LINE.replace("--out out", "--out rgbt.png"), ("rgbt.png", "choose another")
    ),
    Case(
        "an out below a file", LINE.replace("--out out", "--out rgbt.png/run"), ("rgbt.png", "choose another")
    ),
    Case(
        "an out that holds a run",
        LINE.replace("--out out", "--out run"),
        ("holds a run already", "--resume"),
        extras=("run",),
    ),
    Case(
        "a root without data",
        LINE.replace("--root mfnet", "--root rgb"),
        ("rgb", "not the mfnet layout", "check"),
    ),
    Case("an empty image", LINE, (IMAGE, "is empty", "copy it again"), holds(IMAGE, b"")),
    Case("a label out of range", LINE, (LABEL, "outside the", "palette"), holds(LABEL, pictures.COLOUR)),
    Case(
        "a label of another size",
        LINE,
        (LABEL, "64x40", "register"),
        holds(LABEL, pictures.encoded(pictures.labels(1, 9, 40, 64))),
    ),
    Case("a split without labels", LINE, ("label",), gone("mfnet/labels")),
    Case(
        "a list of nobody",
        LINE,
        ("mfnet/train.txt", "is empty", "one image name"),
        holds("mfnet/train.txt", ""),
    ),
    yaml("that is empty", "", "c.yaml", "holds no options", "write them"),
    yaml("that is a word", "hello\n", "c.yaml", "holds no options", "write them"),
    yaml("that is a list", "- 1\n", "c.yaml", "holds no options", "write them"),
    yaml("of bytes", b"\xff\xfe\0\1", "c.yaml"),
    yaml("with an open bracket", "data: [\n", "c.yaml"),
    yaml("with an unknown key", "data: {rot: x}\n", "'rot'", "efnet train --help"),
    yaml("with an unknown section", "optimiser: {lr: 1.0}\n", "optimiser", "efnet train --help"),
    yaml("with a key twice", "seed: 1\nseed: 2\n", "c.yaml", "'seed'", "twice"),
    yaml("with a tag of Python", "seed: !!python/object/apply:os.system ['touch canary']\n", "c.yaml"),
    yaml("with a class of Python", "seed: !!python/name:os.system\n", "c.yaml"),
    yaml(
        "that names a class to make",
        "data: {class_path: os.system, init_args: {command: touch canary}}\n",
        "class_path",
        "not accepted",
    ),
    yaml("of nested lists", "data: " + "[" * 20_000, "c.yaml"),
    yaml(
        "with a bomb of aliases",
        "a: &a [x, x]\n"
        + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
        ),
        "c.yaml",
    ),
    yaml("with itself inside", "data: &a {root: *a}\n", "c.yaml", "100000 values"),
    yaml("with a number of 5000 digits", f"seed: {'9' * 5000}\n", "c.yaml"),
    yaml("with a date that is none", "recipe: 2001-99-99\n", "c.yaml"),
    yaml("with a number in words", "schedule: {power: many}\n", "schedule.power", "a number"),
    yaml("with a tau above 1", "network: {tau: [0.3, 0.7, 1.5]}\n", "tau", "0 to 1"),
    yaml("with stochastic depth of all", "network: {drop_path: 1.0}\n", "drop_path", "below 1"),
    yaml("with a list for a section", "data: [1, 2]\n", "c.yaml", "'data' is a section"),
    yaml("of an unknown recipe", "recipe: secret\n", "secret", "paper"),
    Case("--config that is not there", f"{LINE} --config c.yaml", ("c.yaml",)),
    Case("--config that is a folder", f"{LINE} --config maps", ("maps",)),
    Case("--config without a file", f"{LINE} --config", ("--config",)),
    Case("resuming nothing", "train --out out --resume --quiet", ("no run to resume", "without --resume")),
    Case(
        "resuming a run whose states are damaged",
        RESUME,
        ("cannot be resumed", "start a new run"),
        both(
            flipped("run/last/state.pt"),
            lambda home: (home / "run/last/state.previous.pt").unlink(missing_ok=True),
        ),
        extras=("run",),
    ),
    Case(
        "resuming with another configuration",
        f"{RESUME} --lr 0.5",
        ("optimizer.lr was", "start a new one"),
        extras=("run",),
    ),
    Case(
        "resuming with an empty configuration",
        RESUME,
        ("run/config.yaml",),
        holds("run/config.yaml", ""),
        extras=("run",),
    ),
    Case(
        "resuming with a damaged configuration",
        RESUME,
        ("run/config.yaml",),
        holds("run/config.yaml", "data: ["),
        extras=("run",),
    ),
    Case(
        "resuming with damaged facts",
        f"{RESUME} --epochs 2",
        ("run/run.json", "delete it"),
        cut("run/run.json"),
        extras=("run",),
    ),
    Case(
        "resuming with facts that are a list",
        f"{RESUME} --epochs 2",
        ("run/run.json",),
        holds("run/run.json", "[]"),
        extras=("run",),
    ),
    Case(
        "resuming with damaged metrics",
        f"{RESUME} --epochs 2",
        ("run/metrics.jsonl",),
        cut("run/metrics.jsonl", 0.5),
        extras=("run",),
        changes=("run/*",),
    ),
    Case(
        "resuming where the data are gone",
        f"{RESUME} --epochs 2",
        ("mfnet", "no such folder", "--root"),
        gone("mfnet"),
        extras=("run",),
    ),
    Case("an unknown table", STUDY.replace("table6", "table99"), ("table99", "table1")),
    Case("an unknown row", f"{STUDY} --rows none", ("none",)),
    Case("an unknown budget", STUDY.replace("tiny", "huge"), ("--budget huge", "full")),
    Case("a full budget without data", STUDY.replace("--budget tiny", ""), ("--root",)),
    Case("seeds below none", f"{STUDY} --seeds -1", ("--seeds -1", "0 or more")),
    Case("a seed twice", f"{STUDY} --seeds 1 1", ("--seeds 1 1", "different")),
    Case(
        "experiments in a file",
        STUDY.replace("exp", "rgbt.png").replace("rgbt.pngeriment", "experiment"),
        ("--out rgbt.png", "is a file", "choose another"),
    ),
    Case(
        "experiments among other files",
        STUDY.replace("--out exp", "--out maps"),
        ("maps", "other files", "another"),
    ),
    Case("a search of no time", "tune --out t --minutes 0 --device cpu", ("--minutes 0", "above 0")),
    Case(
        "a search without its space",
        "tune --out t --space nothing.yaml --device cpu",
        ("nothing.yaml", "cannot be read", "check the path"),
    ),
    Case("rates of no steps", "lr-find --steps 0 --device cpu", ("--steps 0", "10 or more")),
    Case(
        "rates that fall",
        "lr-find --low 1 --high 0.1 --device cpu",
        ("--low 1", "--high 0.1", "the lower one first"),
    ),
    Case("experiments of no epochs", f"{STUDY} --epochs 0", ("--epochs 0", "1 or more")),
    Case("experiments at no size", f"{STUDY} --size 0", ("--size 0", "480x640")),
    Case("experiments with workers below none", f"{STUDY} --workers -1", ("--workers -1", "give 0 or more")),
    Case("a report of nothing", "experiment report table6 --out void", ("void", "experiment run")),
    Case(
        "a report of no finished run",
        "experiment report table6 --out exp",
        ("exp", "experiment run"),
        extras=("experiments",),
    ),
    Case(
        "a report of a damaged plan",
        "experiment report table6 --out exp",
        ("experiment.json", "damaged"),
        cut("exp/experiment.json"),
        extras=("experiments",),
    ),
    Case(
        "a report of a plan that is a list",
        "experiment report table6 --out exp",
        ("experiment.json", "damaged"),
        holds("exp/experiment.json", "[]"),
        extras=("experiments",),
    ),
    Case(
        "a report of a plan of nested lists",
        "experiment report table6 --out exp",
        ("experiment.json", "damaged"),
        holds("exp/experiment.json", "[" * 100_000),
        extras=("experiments",),
    ),
    Case(
        "a report of a plan that is a folder",
        "experiment report table6 --out exp",
        ("exp", "no experiments"),
        both(gone("exp/experiment.json"), folder("exp/experiment.json")),
        extras=("experiments",),
    ),
]
