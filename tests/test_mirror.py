"""Tests mirror the package: every module has a test file of its own, or a reason here."""

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "physfed_ray"

DATA_ONLY = "holds values, no behaviour"
REASONS = {
    "checksum": "tests/data/test_verified.py, tests/end_to_end/test_damage.py: one bit anywhere",
    "cli/export": "tests/cli/test_cli.py: its call; tests/serving/export/test_write.py: its work",
    "cli/experiments": "tests/test_shipped.py",
    "cli/parser": "tests/cli/test_cli.py calls every command through it",
    "cli/pretrain": "tests/experiment/test_pretrain.py: the file; tests/runtime/test_pretrain.py",
    "code_version": "tests/data/test_prepare.py: keys change with the code",
    "cost/estimate": "tests/screen/test_describe.py compares every printed number",
    "cost/fresh_noise": "tests/screen/test_describe.py: by hand for two protocols",
    "cost/machines": "tests/screen/test_describe.py: what fits on which machine",
    "cost/published": "tests/screen/test_describe.py: traffic of methods that publish",
    "cost/step_cost": "tests/screen/test_describe.py: by hand for one network",
    "assets/base": "tests/assets/test_store.py: a recipe, and what is frozen of its network",
    "assets/registry": "tests/assets/test_store.py: a recipe by its name",
    "assets/reference": "tests/runtime/test_pretrain.py: by name, by path, by neither",
    "data/anatomy/abdomen": "tests/data/test_phantom.py sweeps all regions",
    "data/anatomy/canvas": "tests/data/test_phantom.py",
    "data/anatomy/chest": "tests/data/test_phantom.py",
    "data/anatomy/head": "tests/data/test_phantom.py",
    "data/anatomy/limb": "tests/data/test_phantom.py",
    "data/anatomy/pelvis": "tests/data/test_phantom.py",
    "data/anatomy/shapes": "tests/data/test_phantom.py",
    "data/anatomy/trunk": "tests/data/test_phantom.py",
    "data/anatomy/vessels": "tests/data/test_phantom.py",
    "data/assemble": "tests/data/test_prepare.py: the files that shards become",
    "data/asset_patients": "tests/runtime/test_pretrain.py: test and validation patients",
    "data/dicom/decoder_process": "tests/data/dicom/test_decoders.py: what ends it",
    "data/dicom/details": "tests/data/dicom/test_pairs.py: geometry, kernels, the scanner",
    "data/dicom/files": "tests/data/dicom/test_source.py: broken and compressed files",
    "data/dicom/headers": "tests/data/dicom/test_source.py: what is left out and why",
    "data/dicom/pairing": "tests/data/dicom/test_pairs.py: partners, and what has none",
    "data/dicom/reasons": "words; tests/data/dicom/test_source.py and test_values.py: each in use",
    "data/dicom/truth": "tests/data/dicom/test_values.py: lossy and derived images",
    "data/dicom/writing/frames": "tests/data/dicom/test_derived.py: multi-frame in, classic out",
    "data/dicom/writing/outdated": "tests/data/dicom/test_derived.py: what no longer holds",
    "data/dicom/writing/provenance": "tests/data/dicom/test_derived.py: source, model, losses",
    "data/grid_body": "tests/data/test_grid.py: masks and circles",
    "data/prepared": "tests/data/test_prepare.py: statistics and the manifest",
    "data/record": "tests/data/test_verified.py, tests/runtime/test_places.py: other data",
    "data/scanning": "tests/data/test_prepare.py, tests/data/test_shards.py",
    "events": DATA_ONLY,
    "experiment/from_header": "tests/experiment/test_measured.py",
    "experiment/channel": "tests/experiment/test_federation.py",
    "experiment/assets": "tests/runtime/test_pretrain.py: missing, another window, another size",
    "experiment/clients": "tests/experiment/test_experiment.py",
    "experiment/data": "tests/experiment/test_experiment.py",
    "experiment/evaluation": "tests/experiment/test_experiment.py",
    "experiment/method": "tests/experiment/test_experiment.py",
    "experiment/named": "tests/experiment/test_experiment.py, tests/reports/test_registry.py",
    "experiment/patients": "tests/experiment/test_explain.py, tests/experiment/test_settings.py",
    "experiment/reports": "tests/experiment/test_experiment.py",
    "experiment/training": "tests/experiment/test_experiment.py",
    "federation/channel/registry": "tests/federation/channel/test_base.py sweeps all channels",
    "federation/names": "tests/methods/test_fedmri.py, tests/federation/test_traffic.py",
    "federation/orders": DATA_ONLY,
    "federation/record": "tests/federation/test_rounds.py: rows and events of rounds",
    "federation/runtime": "tests/federation/test_recovery.py",
    "federation/client/seen": "tests/runtime/test_runtimes.py: every method's scores",
    "federation/serving": "tests/runtime/test_run.py, tests/federation/test_recovery.py",
    "methods/base": "tests/methods/test_methods.py sweeps all methods",
    "models/da_diff/perception": "tests/models/da_diff/test_backbone.py: no part of the network",
    "methods/given": DATA_ONLY,
    "methods/fedper": "names what is shared; tests/methods/test_methods.py",
    "methods/local": "names what is shared; tests/methods/test_methods.py",
    "metrics/base": "tests/metrics/test_registry.py sweeps all metrics",
    "metrics/edges": "tests/metrics/test_sharpness.py",
    "metrics/scoring": "tests/metrics/test_registry.py, tests/metrics/test_pixelwise.py",
    "pages/compare_panels": "tests/pages/test_compare.py",
    "pages/asset_page": "tests/runtime/test_pretrain.py: scores, tables, the leak",
    "pages/compare_sections": "tests/pages/test_compare.py",
    "pages/figures": "tests/pages/test_run_page.py, tests/pages/test_compare.py",
    "pages/gain_figure": "tests/pages/test_compare.py",
    "pages/run_words": "tests/pages/test_run_page.py",
    "pages/sheet": "tests/pages/test_pictures.py, tests/pages/test_zoomed.py",
    "pretraining/checkpoint": "tests/runtime/test_pretrain.py: the same bits after a stop",
    "pretraining/making": "tests/runtime/test_pretrain.py: what an asset says of itself",
    "pretraining/training": "tests/runtime/test_pretrain.py: turns, resume, workers",
    "pretraining/wanted": "tests/runtime/test_pretrain.py: phantoms, a client's images",
    "reports/base": "tests/reports/test_registry.py",
    "reports/bodies": "tests/reports/test_measured.py, tests/reports/test_regions.py",
    "reports/cache": "tests/data/test_description.py",
    "reports/measurements": "tests/reports/test_measured.py",
    "reports/mllm_encoder": "tests/reports/test_mllm.py",
    "reports/mllm_model": "tests/reports/test_mllm.py",
    "reports/wording": "tests/reports/test_measured.py",
    "results/compare_courses": "tests/pages/test_compare.py",
    "results/compare_facts": "tests/pages/test_compare.py",
    "results/compare_pairings": "tests/pages/test_compare.py",
    "results/compare_tables": "tests/pages/test_compare.py",
    "results/denoisers": "tests/results/test_classical.py sweeps them",
    "results/meaning": "tests/pages/test_reports_page.py",
    "results/neighbours": "tests/pages/test_reports_page.py",
    "results/pairing": "tests/pages/test_compare.py",
    "results/run_tables": "tests/results/test_tables.py",
    "results/runs": "tests/pages/test_compare.py, tests/results/test_summaries.py",
    "rundir/data_record": "tests/runtime/test_places.py: in what two data sets differ",
    "rundir/assets": "tests/runtime/test_pretrain.py: the run directory is enough",
    "rundir/formats": "tests/end_to_end/test_damage.py: runs of an earlier version",
    "rundir/intact": "tests/end_to_end/test_damage.py: back to the newest intact round",
    "rundir/manifest": "tests/rundir/test_run_directory.py, tests/end_to_end/test_damage.py",
    "rundir/place": "tests/test_start_up.py: what is no run is told without torch",
    "rundir/recorded_files": "tests/end_to_end/test_damage.py: every file in every way",
    "runtime/begin": "tests/runtime/test_places.py, test_run.py, tests/end_to_end/test_resume.py",
    "runtime/actors": "tests/runtime/test_runtimes.py, tests/runtime/test_placement.py",
    "runtime/inline": "tests/runtime/test_runtimes.py",
    "runtime/on_ray": "tests/runtime/test_runtimes.py, tests/faults",
    "runtime/pool": "tests/runtime/test_reports.py",
    "runtime/pooled_worker": "tests/runtime/test_pooled.py",
    "runtime/pretrain_workers": "tests/runtime/test_pretrain.py: the bits of one process",
    "runtime/results": "tests/runtime/test_run.py",
    "screen/catalogue": "tests/cli/test_cli.py",
    "screen/assets": "tests/runtime/test_pretrain.py: the list of assets",
    "screen/suite": "tests/suites/test_run.py, tests/cli/test_cli.py",
    "screen/sweep": "tests/sweep/test_driver.py, tests/cli/test_cli.py",
    "serving/parts": "tests/serving/test_denoise.py: batches, what is there, what cannot be read",
    "serving/wanted": "tests/serving/test_denoise.py, tests/cli/test_denoise.py",
    "serving/export/card": "tests/serving/export/test_write.py: the hub, the code",
    "serving/export/load": "tests/serving/export/test_write.py: the run's bits, damage",
    "serving/export/onnx_file": "tests/serving/export/test_write.py, test_graph.py: at other sizes",
    "serving/export/usage": "tests/serving/export/test_write.py runs the code of every format",
    "serving/enrol/card": "tests/serving/enrol/test_run.py: damage, another round, a bucket",
    "serving/enrol/fitting": "tests/serving/enrol/test_newcomer.py sweeps all methods",
    "serving/enrol/measure": "tests/serving/enrol/test_run.py: against the client's denoiser",
    "serving/enrol/wish": "tests/serving/enrol/test_run.py: what cannot be",
    "suites/child": "tests/suites/test_run.py: real processes",
    "suites/file": "tests/suites/test_suite.py",
    "suites/resources": "tests/suites/test_run.py",
    "suites/state": "tests/suites/test_run.py",
    "suites/tasks": "tests/suites/test_run.py",
    "sweep/figures": "tests/sweep/test_page.py",
    "sweep/file": "tests/sweep/test_space.py",
    "sweep/pool": "tests/sweep/test_driver.py",
    "sweep/trials": "tests/sweep/test_driver.py",
    "trackers/background": "tests/trackers/test_trackers.py",
    "trackers/base": "tests/trackers/test_trackers.py",
    "trackers/mlflow": "tests/trackers/test_trackers.py",
    "trackers/tensorboard": "tests/trackers/test_trackers.py",
    "trackers/wandb": "tests/trackers/test_trackers.py",
}
"""Modules without a test file of their own, and what tests them instead."""


def modules() -> set[str]:
    """Return every module of the package, as its path without an ending."""
    files = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return {f.with_suffix("").as_posix() for f in files if not f.stem.startswith("__")}


def has_test(module: str) -> bool:
    path = Path(module)
    return (TESTS / path.parent / f"test_{path.name}.py").exists()


def test_a_module_has_a_test_file_or_a_reason() -> None:
    without = {module for module in modules() if not has_test(module)}
    assert sorted(without - REASONS.keys()) == [], "write tests/ROOM/test_MODULE.py"
    assert sorted(REASONS.keys() - without) == [], "take them out of the list"


def test_a_reason_names_tests_that_exist() -> None:
    named = {word.strip(",:;") for reason in REASONS.values() for word in reason.split()
             if word.startswith("tests/")}  # fmt: skip
    assert sorted(name for name in named if not (TESTS.parent / name).exists()) == []
