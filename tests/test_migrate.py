"""Files of older versions are brought to today's form."""

import json

import pytest

from vessels import migrate

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
