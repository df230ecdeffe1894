"""The program as a process: terminals without Unicode, and a machine without OpenCV's libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dagaug", *arguments], env=os.environ | environment, capture_output=True, text=True,
        encoding="latin-1", check=False,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_help_is_shown_on_terminals_without_unicode(encoding: str) -> None:
    done = program("train", "--help", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "--preset" in done.stdout


def test_a_machine_without_libgl_gets_one_line_with_both_cures(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')\n"
    )
    (tmp_path / "a").mkdir()
    done = program("train", str(tmp_path / "a"), PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert done.returncode == 1
    assert done.stderr.startswith("dagaug: OpenCV cannot be loaded (libGL.so.1: cannot open shared object file")
    assert "apt-get install libgl1" in done.stderr
    assert "opencv-python-headless" in done.stderr
    assert done.stderr.count("\n") == 1


HEAVY = """
import sys
from dagaug.__main__ import main
sys.argv[0] = "dagaug"
try:
    main()
except SystemExit as end:
    code = end.code
print(code, sorted({"torch", "cv2", "timm", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train nowhere", "nowhere: no such data folder"),
        ("augment nowhere", "nowhere: no such data folder"),
        ("augment . --weights nowhere.pth", "--weights nowhere.pth: no such file"),
        ("augment . --checkpoint nowhere", "--checkpoint nowhere: no such checkpoint"),
        ("augment . --refs 0", ""),
        ("score nowhere", "nowhere: no such data folder"),
        ("score .", "no augmented .h5 file found"),
        ("translate nowhere --out x", "nowhere: no such folder"),
        ("show nowhere.h5", "nowhere.h5: no such file"),
        ("show . --data nowhere", "nowhere: no such data folder"),
        ("train . --device abacus", "--device abacus: choose auto, cpu, cuda"),
        ("train . --start nowhere", "--start nowhere: no such run folder or checkpoint"),
        ("train . --masks nowhere", "--masks nowhere: no such folder of masks"),
        ("augment . --pairs nowhere.csv", "--pairs nowhere.csv: no such file"),
        ("score . x.h5 --arms real,best", "--arms best: no such arm"),
        ("score . x.h5 --arm theirs=nowhere", "--arm theirs=nowhere: no such HDF5 file or folder"),
        ("score . x.h5 --ratio 2", "--ratio 2: give shares between 0 and 1"),
        ("metrics nowhere.h5", "nowhere.h5: no such file"),
        ("metrics . --lpips nowhere.pth", "--lpips nowhere.pth: no such file"),
        ("metrics . --oracle .", "--oracle .: used only with known pairs"),
        ("translate . --out x --encoding raw", "--encoding raw: only for an HDF5 file"),
        ("translate . --out x", "no checkpoint found under runs/"),
        ("demo --device abacus", "--device abacus: choose auto, cpu, cuda"),
    ],
)
def test_a_slip_of_the_pen_is_told_before_the_slow_imports(arguments: str, message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert message in done.stderr
    assert done.stdout.split(maxsplit=1)[1] == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train data --preset poze", "--preset poze: choose one of"),
        ("train data --precision 8", "--precision 8: choose auto, 32-true"),
        ("train data --without dea", "--without dea: input should be 'dae'"),
        ("train data --size 33", "--size 33: input should be a multiple of 16"),
        ("train data --distance l3", "--distance l3: choose resblock, l2 or timm:NAME"),
        ("train data --learning-rate -1", "--learning-rate -1.0: input should be greater than 0"),
        ("train empty", "empty: no images found"),
        ("augment data --variants morf", "input should be 'morph', 'mirror' or 'cutout'"),
        ("score data file", "file: "),
        ("metrics file data", "file: "),
        ("show file", "file: "),
    ],
)
def test_a_wrong_value_or_input_is_told_without_torch(arguments: str, message: str, tmp_path: Path) -> None:
    """These need numpy or OpenCV, which load in a fraction of a second."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("wren", "owl"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "x.png").touch()
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert message in done.stderr
    assert not {"torch", "timm", "matplotlib"} & set(done.stdout.split("'"))
