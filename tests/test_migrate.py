"""Files of older versions are brought to today's form."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT

from vessels import UserError, migrate, release
from vessels.training import run_folder

import small
from pretrained import load_network, load_weights, read_record, weights_file

RECIPE = {"recipe": "authors", "steps": 5, "augmentation": {"turned": 0.5}}
RECORD = {"dataset": "DRIVE", "variant": "rsan", "recipe": RECIPE, "model": {"keep_prob": 0.9, "variant": "rsan"}}
METRICS = {"dataset": "CHASEDB1", "trained_on": "DRIVE", "variant": "rsan", "flips": True,
           "weights": {"recipe": RECIPE}}


def test_an_old_run_folder_gets_todays_names_and_keys_once(tmp_path, capsys):
    (tmp_path / "results/CHASEDB1").mkdir(parents=True)
    (tmp_path / "look").mkdir()
    for name, content in (("config.json", {}), ("best.json", RECORD), ("results/CHASEDB1/metrics.json", METRICS)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "best.weights.h5").write_bytes(b"weights")
    assert migrate.main([str(tmp_path)]) == 0
    record, metrics = (json.loads((tmp_path / name).read_text(encoding="utf-8"))
                       for name in ("final.json", "results/CHASEDB1/metrics.json"))
    assert record["name"] == metrics["name"] == "rsan, authors' recipe" and metrics["tta"] and "flips" not in metrics
    assert record["model"] == {**RECORD["model"], "filters": 16, "block_size": 7}
    assert record["recipe"] == {"recipe": "authors", "steps_per_epoch": 5, "augmentation": {"rotate_prob": 0.5}}
    assert (tmp_path / "final.weights.h5").read_bytes() == b"weights" and (tmp_path / "previews").is_dir()
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert migrate.main([str(tmp_path)]) == 0 and capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "message"), [("none", "no such folder"), ("both", "exists beside look; remove one"),
                                               ("broken", "metrics.json: cannot be read")])
def test_what_cannot_be_migrated_is_said(name, message, tmp_path, capsys):
    for path in ("both/look", "both/previews", "broken"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("both/config.json", "broken/metrics.json"):
        (tmp_path / path).write_text("{", encoding="utf-8")
    assert migrate.main([str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_a_run_folder_as_an_older_version_wrote_it_is_loaded_and_not_resumed(tmp_path, capsys):
    """Written by commit b9de3e8, with weights of `small.build` whose mean prediction is known."""
    folder = shutil.copytree(ROOT / "tests/golden/run_b9de3e8", tmp_path / "run")
    asked = {}

    def build(keep_prob, variant, **others):
        asked.update(others)
        return small.build(keep_prob, variant)

    record = read_record(weights_file(folder))
    model = load_network(build, load_weights, weights_file(folder), record)
    assert asked == {"filters": 16, "block_size": 7} and record["recipe"]["steps_per_epoch"] == 2
    x = np.linspace(0, 1, 64 * 64 * 3, dtype="float32").reshape(1, 64, 64, 3)
    assert model.predict_on_batch(x).mean() == pytest.approx(0.548242, abs=1e-5)
    with pytest.raises(UserError, match=r"config\.json: not of a run of this version .* cannot be resumed"):
        run_folder.describe(folder, {})
    (folder / "best.json").write_text(json.dumps({**record, "unfinished": True}), encoding="utf-8")
    assert release.main([str(folder), "drive_rsan"]) == 2
    assert "the training is unfinished" in capsys.readouterr().err
    assert migrate.main([str(folder)]) == 0
    assert weights_file(folder).name == "final.weights.h5" and read_record(weights_file(folder))["unfinished"]
