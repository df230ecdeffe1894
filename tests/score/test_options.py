"""Options of a score: the arms of the protocol, and values out of range."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagaug.classifiers.backbones import LITE0
from dagaug.classifiers.fit import FitOptions
from dagaug.runtime.errors import UsageError
from dagaug.score.options import DEFAULT_ARMS, ScoreOptions, arm_names


def test_arms_have_the_baselines_of_the_protocol() -> None:
    options = ScoreOptions(arms=arm_names(), others=(("theirs", Path("x")),))
    table = {arm.name: arm for arm in options.table()}
    assert tuple(table) == (
        "real", "cutmix", "mixup", "trivialaugment", "real+dagaug", "dagaug+cutmix", "cutout", "cutwarp", "random",
        "frozen", "cutout+dagaug", "theirs",
    )  # fmt: skip
    assert table["real"].against == ()
    assert all("real" in arm.against for name, arm in table.items() if name != "real")
    assert table["real+dagaug"].against == (
        "real", "cutmix", "mixup", "trivialaugment", "cutout", "cutwarp", "random", "frozen", "theirs",
    )  # fmt: skip
    mixed = {name: arm.mixing for name, arm in table.items() if arm.mixing != "none"}
    assert mixed == {"cutmix": "cutmix", "mixup": "mixup", "dagaug+cutmix": "cutmix"}
    assert [name for name, arm in table.items() if arm.trivialaugment] == ["trivialaugment"]
    assert table["cutout+dagaug"].against == ("real", "real+dagaug", "cutout")
    few = {arm.name: arm for arm in ScoreOptions(arms=("real", "cutout", "real+dagaug")).table()}
    assert few["real+dagaug"].against == ("real", "cutout")
    assert ScoreOptions().seeds == 5
    assert [arm.name for arm in ScoreOptions().table()] == list(DEFAULT_ARMS)


def test_a_linear_probe_leaves_out_the_arms_that_differ_from_real_by_mixed_batches_alone() -> None:
    arms = ("real", "trivialaugment", "cutmix", "mixup")
    probe = ScoreOptions(FitOptions(LITE0, mode="linear-probe"), arms=arms)
    assert [arm.name for arm in probe.table()] == ["real", "trivialaugment"]
    assert {"cutmix", "mixup"} <= set(probe.left_out)
    assert not {"cutmix", "mixup"} & set(ScoreOptions(arms=arms).left_out)


def test_impossible_options_are_refused_by_name() -> None:
    for changes, words in (
        ({"seeds": 1}, "seeds=1: give at least 2"),
        ({"seed": -1}, "seed=-1: give at least 0"),
        ({"arms": ("real", "best")}, "arms=best: no such arm; choose among real, cutmix"),
        ({"arms": ("cutmix",)}, "arms=cutmix: add real; all arms are compared with it"),
        ({"others": (("cutmix", Path("x")),)}, "others=cutmix: give each arm a different name"),
        ({"fractions": (0.0,)}, "fractions=0: give shares above 0"),
        ({"ratios": (1.0,)}, "ratios=1: give shares between 0 and 1"),
        ({"share_choices": (0.3, 0.5)}, "share_choices=0.3,0.5: choosing needs .* to hold out; try validation=0.25"),
        ({"step_choices": (20, 40)}, "step_choices=20,40: choosing needs .* to hold out; try validation=0.25"),
        ({"validation": 0.5, "share_choices": (0.3, 1.0)}, "share_choices=1: give shares between 0 and 1"),
        ({"validation": 0.5, "step_choices": (0, 9)}, "step_choices=0: give at least 1"),
        ({"validation": 0.5, "step_choices": (9, 9)}, "step_choices=9,9: give several to choose from"),
        ({"validation": 0.5, "share_choices": (0.3,)}, "share_choices=0.3: give several to choose from"),
        ({"validation": 0.5, "share_choices": (0.3, 0.31)}, "share_choices=0.3,0.31: two of them are the same number"),
        ({"validation": 0.5, "step_choices": (2, 4), "fit": FitOptions(steps=3)}, "steps=3: give either this or"),
        (
            {"validation": 0.5, "share_choices": (0.3, 0.5), "arms": ("real", "cutmix")},
            "arms=real,cutmix: no arm has synthetic images",
        ),
        (
            {"fit": FitOptions(LITE0, mode="linear-probe", layer_decay=0.5)},
            "layer_decay=0.5: a linear probe trains one layer",
        ),
        ({"validation": 0.7}, "validation=0.7: give a share above 0 and up to 0.5"),
        (
            {"fit": FitOptions(mode="finetune")},
            "mode=finetune: plain has no pretrained weights; try another weights or classifier=lite0",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            ScoreOptions(**changes)  # type: ignore[arg-type]
