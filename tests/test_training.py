"""Training runs: what they write, how they resume, and what they refuse."""

import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from conftest import TINY

import train_chase
import train_drive
from benchmarks import kills
from vessels import UserError
from vessels.data import published, synthetic
from vessels.data.published import DRIVE
from vessels.metrics import histogram, score, to_16_bit
from vessels.prediction.maps import predict_image
from vessels.training import loop, run_folder, schedules
from vessels.training.config import Recipe, main, parse, read

import rsan_model
import small

RECIPE = Recipe(network="small", epochs=2, steps_per_epoch=2, batch_size=2, patch_size=56, keep_prob=0.88)
AUTHORS = {"epochs": 1, "batch_size": 2, "learning_rate": 1e-3}
SHORT = ["--synthetic", "--epochs", "4", "--steps-per-epoch", "2", "--batch-size", "2", "--patch-size", "56"]


def run(folder, *flags, recipe=RECIPE):
    return main(TINY, recipe, AUTHORS, "help", [*SHORT, "--output-dir", str(folder), *flags])


def authors(folder, *flags):
    return main(TINY, RECIPE, AUTHORS, "help",
                ["--synthetic", "--recipe", "authors", "--output-dir", str(folder), *flags])


def parsed(*flags, recipe=RECIPE, authors=AUTHORS):
    return parse(DRIVE, recipe, authors, "help", flags)


def arrays(path):
    return {name: value for name, value in kills.contents(path).items() if isinstance(value, np.ndarray)}


def record_in(folder):
    return json.loads((folder / "final.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(folder) == 0
    return folder


def test_a_run_leaves_all_that_evaluation_and_a_reader_need(finished):
    record = record_in(finished)
    model = small.build(**record["model"])
    rsan_model.load_weights(model, finished / "final.weights.h5")
    assert not any(name.startswith("optimizer") for name in arrays(finished / "final.weights.h5"))
    assert record["dataset"] == "synthetic" and record["recipe"]["patch_size"] == 56
    with (finished / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert {"loss", "val_auc", "val_f1", "learning_rate"} <= set(rows[0])
    assert [float(row["keep_prob"]) for row in rows] == [1, 0.983333, 0.95, 1]
    assert {path.name for path in (finished / "previews").iterdir()} == {"history.png", "panel.png"}
    assert json.loads((finished / "environment.json").read_text(encoding="utf-8"))["keras"] == keras.__version__


@pytest.mark.slow
def test_a_run_cut_between_epochs_ends_in_the_same_bits(finished, tmp_path, monkeypatch):
    """Two epochs, the second with DropBlock, then the rest from the checkpoint alone."""
    save = loop.save_weights

    def cut(model, path, history=None):
        save(model, path, history)
        if history and len(history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_weights", cut)
    assert run(tmp_path) == 130
    monkeypatch.undo()
    record = record_in(tmp_path)
    assert record["unfinished"] and len(record["history"]) == 2
    assert run(tmp_path) == 0
    assert "unfinished" not in record_in(tmp_path)
    kills.assert_same(tmp_path, finished)


def test_a_finished_run_is_not_trained_again(finished, capsys):
    before = [(finished / name).stat().st_mtime_ns for name in ("latest.weights.h5", "final.json")]
    assert run(finished) == 0
    assert [(finished / name).stat().st_mtime_ns for name in ("latest.weights.h5", "final.json")] == before
    assert "final.weights.h5" in capsys.readouterr().out


@pytest.mark.parametrize(("key", "value", "said"), [
    ("seed", 1, "seed 1 (asked: 0)"),
    ("backend", "jax", "backend jax (asked: "),
    ("loss", "dice", "loss dice (asked: weighted_crossentropy)"),
    ("augmentation", {"noise": 1}, "augmentation: noise 1 (asked: 0.02)"),
    ("optimizer", {"class_name": "SGD"}, "optimizer: class_name SGD (asked: Adam), optimizer: "),
    ("schedules", {"cooldown_momentum": 0.95}, "schedules: cooldown_momentum 0.95 (asked: 0.99), schedules: "),
    ("model", {}, "model: keep_prob None (asked: "),
    ("data_sha256", {"21_training.tif": "0"}, "data_sha256: 21_training.tif 0 (asked: None)"),
    ("validation_sha256", {"23_training.tif": "0"}, "validation_sha256: 23_training.tif 0 (asked: None)"),
])
def test_a_run_of_another_configuration_is_not_resumed(key, value, said, finished, tmp_path, capsys):
    """The content of the run folder does not change."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(folder) == 2
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_unknown_variant_is_said(tmp_path, capsys):
    assert run(tmp_path / "run", "--variant", "unet", recipe=train_drive.RECIPE) == 2
    assert "variant must be one of rsan" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_left_as_it_is(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"name": "mine"}')
    assert run(tmp_path) == 2
    assert "config.json: not of a run of this version (it lacks dataset, optimizer, " in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == '{"name": "mine"}'


def test_two_runs_in_one_folder_are_refused(tmp_path, capsys):
    with run_folder.lock_run(tmp_path):
        assert run(tmp_path) == 2
    assert "another training writes here" in capsys.readouterr().err


def test_a_broken_loss_stops_the_run_before_its_checkpoint(tmp_path, capsys):
    assert run(tmp_path, "--learning-rate", "1e30") == 2
    assert "the loss is nan in epoch 1, which is not saved; try a lower --learning-rate" in capsys.readouterr().err
    assert not (tmp_path / "final.json").exists() and not (tmp_path / "latest.weights.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "recipe"), [
    ("backbone", "authors"), ("backbone_dropblock", "authors"), ("rsan", "augmented")])
def test_the_authors_recipe_trains_the_ablations_and_on_versions(variant, recipe, tmp_path):
    assert authors(tmp_path, "--variant", variant, "--recipe", recipe, "--epochs", "1") == 0
    record = record_in(tmp_path)
    assert record["variant"] == variant and len(record["history"]) == 1
    assert (record["augmentation"] or {}).get("rotated") == (4 if recipe == "augmented" else None)


@pytest.mark.parametrize(("script", "batch_size", "keep_prob"), [(train_drive, 2, 0.85), (train_chase, 1, 0.78)])
def test_the_authors_recipe_is_the_one_of_their_scripts(script, batch_size, keep_prob):
    recipe = parsed("--recipe", "authors", recipe=script.RECIPE, authors=script.AUTHORS)[0]
    assert (recipe.batch_size, recipe.keep_prob, recipe.vessel_weight) == (batch_size, keep_prob, 1)
    assert schedules.phases(recipe, 9) == [(0, 100, 1e-3), (100, 150, pytest.approx(1e-4))]


@pytest.mark.slow
def test_the_authors_second_phase_begins_with_a_new_adam_and_keeps_the_last_epoch(tmp_path, monkeypatch):
    """A run that is stopped between the phases and resumed ends, bit by bit, as an undisturbed one."""
    flags = "--epochs", "3", "--batch-size", "2"
    steps, save = [], loop.save_weights

    def watch(model, path, history=None):
        save(model, path, history)
        if history:
            steps.append((int(model.optimizer.iterations), float(model.optimizer.learning_rate)))
            if len(history) == cut:
                raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_weights", watch)
    for folder, stop, code in (("whole", None, 0), ("cut", 2, 130), ("cut", None, 0)):
        cut = stop
        assert authors(tmp_path / folder, *flags) == code
    assert steps == [(4, pytest.approx(1e-3)), (8, pytest.approx(1e-3)), (4, pytest.approx(1e-4))] * 2
    record = record_in(tmp_path / "whole")
    assert [row["keep_prob"] for row in record["history"]] == [record["model"]["keep_prob"]] * 3 != [1] * 3
    kills.assert_same(tmp_path / "cut", tmp_path / "whole")
    latest, final = (arrays(tmp_path / f"cut/{name}.weights.h5") for name in ("latest", "final"))
    for name, value in final.items():
        np.testing.assert_array_equal(latest[name], value, err_msg=name)


@pytest.mark.slow
def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    try:
        assert run(tmp_path, "--mixed-precision", "--epochs", "1") == 0
        model = small.build()
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16", "float32"}
    assert model.layers[-1].compute_dtype == "float32"
    assert {str(value.dtype) for value in arrays(tmp_path / "final.weights.h5").values()} == {"float32"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--patch-size", "50"], "at least 56"),
        (["--patch-size", "60"], "multiple of 8"),
        (["--batch-size", "0"], "at least 1"),
        (["--epochs", "-1"], "at least 1"),
        (["--keep-prob", "0"], "keep-prob must be at least 0.01 and at most 1"),
        (["--keep-prob", "1.5"], "keep-prob must be at least 0.01 and at most 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--seed", "20261129103000"], "--seed must be at least 0 and at most 4294967295"),
        (["--block-size", "17"], "--block-size must be at most 7"),
        (["--start", ""], "--start is empty: name weights, or omit it"),
        (["--learning-rate", "0"], "--learning-rate must be at least"),
        (["--learning-rate", "nan"], "--learning-rate must be at least"),
        (["--vessel-weight", "inf"], "--vessel-weight must be at least"),
        (["--learning-rate", "fast"], "invalid float"),
        (["--colour", "red"], "unrecognized arguments"),
        (["--train-on", "test"], "invalid choice: 'test'"),
        (["--recipe", "authors", "--patch-size", "64"], "--patch-size has no effect with --recipe authors"),
        (["--recipe", "augmented", "--steps-per-epoch", "64"], "--steps-per-epoch has no effect with --recipe augm"),
        (["--steps", "64"], "--steps: is now called --steps-per-epoch"),
    ],
)
def test_impossible_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(*flags)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_every_field_of_the_recipe_is_a_flag_and_flags_win():
    recipe, _, arguments = parsed("--recipe", "authors", "--epochs", "7")
    assert (recipe.epochs, recipe.learning_rate, arguments.data_dir) == (7, 1e-3, None)
    general = dataclasses.replace(RECIPE, mixed_precision=True)
    assert not parsed("--no-mixed-precision", recipe=general)[0].mixed_precision
    values = {int: "64", float: "0.5", str: None, bool: None}
    for field in dataclasses.fields(Recipe):
        if values[field.type]:
            changed = parsed("--patch-size", "512", "--" + field.name.replace("_", "-"), values[field.type])[0]
            assert getattr(changed, field.name) == field.type(values[field.type])


@pytest.mark.parametrize(("flags", "name"), [
    (["--seed", "3"], "drive-rsan-3"), (["--synthetic"], "drive-synthetic-rsan-0"),
    (["--recipe", "augmented"], "drive-augmented-rsan-0"),
    (["--recipe", "authors", "--synthetic", "--variant", "backbone"], "drive-synthetic-authors-backbone-0")])
def test_a_runs_folder_is_named_by_what_is_trained(flags, name):
    recipe, _, arguments = parsed(*flags)
    assert arguments.output_dir.name == name
    if recipe.synthetic:
        assert (recipe.epochs, recipe.batch_size, recipe.keep_prob) == (3, 4, 0.95)


def test_the_default_recipes_are_what_the_released_weights_were_trained_by():
    common = {"epochs": 60, "batch_size": 4, "keep_prob": 0.92, "learning_rate": 2.5e-3, "vessel_weight": 1.2}
    for script, special in ((train_drive, {"steps_per_epoch": 200, "patch_size": 128}),
                            (train_chase, {"steps_per_epoch": 150, "patch_size": 160})):
        assert dataclasses.asdict(script.RECIPE).items() >= {**common, **special}.items()


def test_validation_images_are_not_the_training_images(monkeypatch):
    for method in ("load", "check", "checksums", "pixels"):
        monkeypatch.setattr(published.Dataset, method, lambda self, split, method=method: [method, split])
    data = read(DRIVE, dataclasses.replace(RECIPE, synthetic=False))
    assert (data.train, data.validation) == (["load", "train"], ["load", "validation"])
    assert data.facts == {"data_sha256": ["checksums", "train"], "validation_sha256": ["checksums", "validation"],
                          "pixels_sha256": ["pixels", "train+validation"], **DRIVE.widths.as_record()}


def test_what_validation_says_is_of_the_validation_images(finished):
    record = record_in(finished)
    model = small.build(**record["model"])
    rsan_model.load_weights(model, finished / "final.weights.h5")
    examples = synthetic.make(TINY, "validation")
    maps = np.stack([predict_image(model, example.image, TINY.padded) for example in examples])
    labels, fovs = (np.stack([getattr(example, name) for example in examples]) for name in ("label", "fov"))
    counts = histogram(to_16_bit(maps), labels, fovs)
    assert score(counts)["auc"] == pytest.approx(record["validation"]["val_auc"], abs=1e-4)


def ramp_of(recipe):
    return [schedules.stage(recipe, epoch)[0] for epoch in range(recipe.epochs)]


def test_short_runs_still_drop_and_low_rates_do_not_rise():
    assert schedules.stage(Recipe(epochs=1, keep_prob=0.9), 0) == (0.9, 0.9)
    for epochs in range(2, 8):
        ramp = ramp_of(Recipe(epochs=epochs, keep_prob=0.9))
        assert min(ramp) == 0.9 and ramp[-1] == 1
    ((*_, rate),) = schedules.phases(Recipe(epochs=20, learning_rate=1e-6), 100)
    assert max(float(rate(step)) for step in range(0, 2000, 50)) <= 1.001e-6


def test_schedules():
    recipe = Recipe(epochs=20, keep_prob=0.88)
    ramp = ramp_of(recipe)
    assert ramp[0] == 1 and ramp[12] == ramp[15] == 0.88 and ramp[:16] == sorted(ramp[:16], reverse=True)
    assert ramp[16:] == [1] * 4
    assert [schedules.stage(recipe, epoch)[1] for epoch in range(20)] == [0.9] * 16 + [0.99] * 4
    ((first, end, rate),) = schedules.phases(recipe, 100)
    assert (first, end) == (0, 20)
    assert float(rate(0)) == 0 and float(rate(50)) == pytest.approx(recipe.learning_rate)
    assert float(rate(2000)) == pytest.approx(1e-5, rel=1e-3)


def test_a_second_cycle_repeats_all_schedules_from_a_lower_rate():
    once, twice = Recipe(epochs=20, keep_prob=0.88), Recipe(epochs=30, keep_prob=0.88, second_cycle=1 / 3)
    (*first, rate), (*second, low) = schedules.phases(twice, 100)
    assert (first, second) == ([0, 20], [20, 30])
    assert rate.get_config() == schedules.phases(once, 100)[0][2].get_config()
    assert [float(low(step)) for step in (0, 50, 1000)] == pytest.approx([0, 1e-3, 1e-5], rel=1e-3)
    ramp = ramp_of(twice)
    assert ramp[:20] == ramp_of(once)
    assert ramp[20] == 1 and ramp[26] == ramp[27] == 0.88 and ramp[28:] == [1, 1]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_of_a_value_per_photograph_is_weighted_by_its_own_pixels(weighted, monkeypatch):
    """With a batch as large as the width, Keras alone would multiply it with a column of all photographs."""
    def dice(label, probability):
        def total(x):
            return keras.ops.sum(x, (1, 2, 3))

        return 1 - 2 * total(label * probability) / total(label + probability)

    monkeypatch.setattr(schedules, "loss_of", lambda recipe: dice)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs))
    model.compile("sgd", schedules.training_loss(RECIPE))
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 8, 8, 1), "float32"), rng.random((8, 8, 8, 1), "float32").round()
    weight = rng.random((8, 8, 8), "float32") if weighted else np.ones((8, 8, 8), "float32")
    wanted = (1 - 2 * (x * y).sum((1, 2, 3)) / (x + y).sum((1, 2, 3))) * weight.mean((1, 2))
    assert model.test_on_batch(x, y, weight if weighted else None) == pytest.approx(wanted.mean(), rel=1e-5)
    assert schedules.described(RECIPE, 2)["loss"] == "dice"


@pytest.mark.parametrize(("name", "value", "said"), [
    ("optimizer_of", lambda rate: keras.optimizers.Adam(rate, beta_1=0.5), "optimizer: beta_1 0.9 (asked: 0.5)"),
    ("optimizer_of", keras.optimizers.SGD, "optimizer: class_name Adam (asked: SGD)"),
    ("SCHEDULES", schedules.Schedules(warmup_steps=10), "schedules: warmup_steps 50 (asked: 10)"),
    ("SCHEDULES", schedules.Schedules(stages=3), "schedules: stages 6 (asked: 3)"),
])
def test_what_is_optimized_how_is_part_of_the_description(name, value, said, monkeypatch):
    before = schedules.described(RECIPE, 200)
    monkeypatch.setattr(schedules, name, value)
    assert said in run_folder.differences(before, schedules.described(RECIPE, 200))


@pytest.mark.parametrize("vessel_weight", [1.0, 1.2])
def test_a_vessel_pixel_counts_as_often_as_asked(vessel_weight):
    label, probability = np.array([[[[1.0], [0.0]]]], "float32"), np.array([[[[0.6], [0.3]]]], "float32")
    found = np.asarray(schedules.loss_of(dataclasses.replace(RECIPE, vessel_weight=vessel_weight))(label, probability))
    np.testing.assert_allclose(found, [[[-vessel_weight * np.log(0.6), -np.log(0.7)]]], rtol=1e-5)


def test_missing_data_is_said_before_anything_is_written(tmp_path, capsys):
    flags = ["--data-dir", str(tmp_path / "none"), "--output-dir", str(tmp_path / "run")]
    assert main(DRIVE, RECIPE, AUTHORS, "help", flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no such folder" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_read_only_place_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="choose --output-dir"):
        run_folder.lock_run(blocked / "run")


@pytest.mark.parametrize("kind", ["patches", "authors", "any"])
def test_batches_are_drawn_by_the_runs_seed(kind):
    recipe = dataclasses.replace(RECIPE, recipe=kind, seed=5, patch_size=56, batch_size=2, steps_per_epoch=2)
    assert loop.batches_of(recipe, DRIVE, synthetic.make(DRIVE, "validation")).recipe.seed == 5
