"""tools/gpu_report.py at tiny sizes on a CPU: what it measures, writes, and does without time."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from helpers.kernel_cases import NEEDS_INTERPRETER
from helpers.load_tool import ROOT, load_tool, run_tool

from slowfast_maskfeat.videos.decode import _load as load_backend

steps, records, settings, measured_steps, operators, loading, sections, page, report = (
    load_tool(f"tools/{name}.py")
    for name in (
        *("benchmark_steps", "gpu_records", "gpu_settings", "gpu_steps", "gpu_operators"),
        *("gpu_loading", "gpu_sections", "gpu_page", "gpu_report"),
    )
)
Record, Deadline, Report = records.Record, records.Deadline, page.Report
QUICK = ("--quick", "--no-tests", "--in-process")
SETTING = settings.Setting(torch.device("cpu"), quick=True)


def _run(tmp_path, *words):
    done = run_tool("tools/gpu_report.py", *QUICK, "--output", tmp_path / "page.md", *words)
    assert done.returncode == 0, done.stderr
    return (
        done,
        (tmp_path / "page.md").read_text(),
        json.loads((tmp_path / "page.json").read_text()),
    )


def test_a_tiny_report(tmp_path, monkeypatch):
    one, four, *others = loading.LOADINGS
    monkeypatch.setattr(loading, "LOADINGS", (one, four))
    done, text, content = _run(tmp_path, "--only", "mae", "loading")
    assert done.stdout.splitlines()[-2:] == [
        f"wrote {tmp_path / 'page.md'}",
        f"wrote {tmp_path / 'page.json'}",
    ]
    assert re.search(r"^\d:\d\d left: ViT-L, MAE, eager \(batch 2\): ", done.stdout, re.MULTILINE)
    assert [record["error"] for record in content["records"]] == [""] * 7
    measured = {(r["row"], r["form"]): r["values"] for r in content["records"]}
    eager, plain = (measured["ViT-L, MAE", form] for form in ("eager", "plain"))
    assert eager["clips_per_second"] == pytest.approx(eager["batch"] / eager["seconds"])
    assert eager["mfu"] == pytest.approx(eager["tflops"] / eager["matrix_tflops"])
    ratio = eager["clips_per_second"] / plain["clips_per_second"]
    assert "| ViT-L, MAE | eager | batch 2 |" in text
    assert f"| {ratio:.2f} x |" in text
    ends = [v for (row, _), v in measured.items() if row == "training, end to end"]
    alone = measured["compute alone", "eager"]["clips_per_second"]
    assert [end["clips_per_video"] for end in ends] == [1, 4]
    for end in ends:
        assert end["of_compute"] == pytest.approx(end["clips_per_second"] / alone)
        assert 0 <= end["data_wait"] <= 1
    assert {form for _, form, _ in content["left_out"]} == {other.form for other in others}
    assert {reason for *_, reason in content["left_out"]} == {"the section ended without it"}
    assert "the numbers mean nothing" in text


def test_what_a_loader_cannot_do_is_reported(monkeypatch):
    """Decoding on the device, on a machine without a device or a decoder for it."""
    if "absent" not in load_backend("torchcodec_cuda")[1]:
        pytest.skip("torchcodec decodes on the device")
    monkeypatch.setattr(loading, "LOADINGS", loading.LOADINGS[-1:])
    compute, *failed = loading.measure_loading(SETTING)
    assert not compute.error
    assert [record.row for record in failed] == [loading.LOADER, records.END_TO_END]
    assert all("torchcodec_cuda" in record.error for record in failed)


@NEEDS_INTERPRETER
@pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning")
def test_the_kernels_have_a_row():
    found = {record.form: record for record in sections.SECTIONS["s"].measure(SETTING)}
    assert list(found) == ["eager", "plain", "kernels"]
    assert [record.error for record in found.values()] == [""] * 3
    assert all(0 < record.values["hog_share"] < 1 for record in found.values())


def test_operators_are_those_that_the_page_expects():
    section = sections.SECTIONS["operators"]
    state = steps.make_state(settings.S.read(SETTING), steps.FAST, SETTING.device)
    names = [operator.name for operator in operators.operators(state, 2, (2, 16, 16))]
    assert tuple(names) == operators.OPERATOR_NAMES
    assert {row for row, _ in section.rows} == set(names)
    for operator in operators.operators(state, 2, (2, 16, 16)):
        values = operators.measure_operator(operator, steps.FAST, SETTING)
        assert values["seconds"] > 0


def test_every_section_has_its_configurations():
    for training in (getattr(settings, name) for name in ("S", "L", "FINETUNING", "MAE", "IBOT")):
        for quick in (True, False):
            setting = settings.Setting(torch.device("cpu"), quick)
            for _, pairs in settings.FORMS.values():
                assert training.read(setting, pairs).is_frozen()


def test_a_section_that_fails_or_has_no_time_is_left_out(monkeypatch):
    def fail(setting):
        yield Record("steps", "a", "one", "batch 2", error="out of memory")
        now[0] = 100.0
        raise RuntimeError("no kernel\nat all")

    section = sections.Section([("a", "one"), ("a", "two")], fail)
    monkeypatch.setitem(sections.SECTIONS, "broken", section)
    now = [0.0]
    result = Report(
        {}, left_out=dict.fromkeys([*section.rows, *sections.SECTIONS["mae"].rows], "-")
    )
    deadline = Deadline(50.0, lambda: now[0])
    names = ["broken", "mae"]
    done = list(report.measure(names, SETTING, deadline, result, in_process=True))
    assert result.records == done
    assert [record.form for record in done] == ["one"]
    assert result.left_out == {
        ("a", "two"): "RuntimeError: no kernel",
        ("ViT-L, MAE", "eager"): report.TIME_IS_UP,
        ("ViT-L, MAE", "plain"): report.TIME_IS_UP,
    }
    assert "The time was up:\n\n- ViT-L, MAE: eager; plain" in page.page(result)


def test_what_does_not_fit_costs_its_row_and_is_halved(monkeypatch):
    sizes = []

    def measure(training, form, size, *rest):
        sizes.append((form, size))
        if form == "plain" and size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"batch": size, "seconds": 1.0, "clips_per_second": size / 1.0}

    monkeypatch.setattr(measured_steps, "_measure_step", measure)
    monkeypatch.setattr(settings.Training, "size", lambda self, setting: 16)
    found = list(sections.SECTIONS["mae"].measure(SETTING))
    assert sizes == [("eager", 16), ("plain", 16), ("plain", 8), ("plain", 4)]
    assert [record.error for record in found] == ["", "out of memory", "out of memory", ""]
    assert records.plain_of(found, "ViT-L, MAE") is found[-1]


@pytest.mark.slow  # starts processes that import torch
def test_a_process_for_each_section(tmp_path):
    words = ("--quick", "--no-tests", "--output", tmp_path / "page.md", "--only", "mae", "l")
    done = run_tool("tools/gpu_report.py", *words)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "page.json").read_text())
    assert [r["form"] for r in content["records"][:2]] == ["eager", "plain"]
    assert len(content["records"]) == 5


def test_a_process_ends_when_the_time_is_up(monkeypatch):
    """It is killed, and what it had measured is kept."""
    code = f"print({report._MARK!r} + {Record('steps', 'a', 'one').to_line()!r}, flush=True)\n"
    code += "import time; time.sleep(60)"
    popen = subprocess.Popen
    running = []

    def start(command, **options):
        running.append(popen([sys.executable, "-c", code], **options))
        return running[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    (record,) = report._in_child("mae", SETTING, Deadline(3.0))
    assert record == Record("steps", "a", "one")
    assert running[0].returncode is not None


def test_a_process_that_fails_is_named(monkeypatch):
    popen = subprocess.Popen
    code = "import sys; sys.exit('no memory on this device')"
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda command, **options: popen([sys.executable, "-c", code], **options),
    )
    with pytest.raises(report._ProcessError, match="ended with code 1: no memory on this device"):
        list(report._in_child("mae", SETTING, Deadline(30.0)))


def test_ctrl_c_leaves_what_was_measured(tmp_path, monkeypatch):
    def interrupted(setting):
        yield Record("steps", "a", "one", "batch 2", error="out of memory")
        raise KeyboardInterrupt

    section = sections.Section([("a", "one"), ("a", "two")], interrupted)
    monkeypatch.setitem(sections.SECTIONS, "mae", section)
    output = tmp_path / "page.md"
    done = run_tool("tools/gpu_report.py", *QUICK, "--output", output, "--only", "mae", "l")
    assert done.returncode == 130
    assert f"wrote {output}" in done.stdout
    text = output.read_text()
    assert "Out of memory:\n\n- a: one (batch 2)" in text
    assert "Interrupted:\n\n- a: two\n- MViTv2-L, MaskFeat: eager; plain; kernels" in text


def _record(row, form, **values):
    table = records.LOADING if row == records.END_TO_END else records.STEPS
    return Record(table, row, form, "batch 8", {"seconds": 1.0, "first_seconds": 2.0, **values})


def test_goals_are_compared_with_the_fastest_form():
    name = records.S_PRETRAINING
    of_plain = {"clips_per_second": 100.0, "batch": 8, "memory_gib": 40.0, "mfu": 0.05}
    found = [
        _record(name, "eager", clips_per_second=350.0, batch=16, memory_gib=20.0, mfu=0.18),
        _record(name, "compiled", clips_per_second=400.0, batch=16, memory_gib=16.0, mfu=0.21),
        _record(name, "plain", **of_plain),
        _record(records.END_TO_END, "a", clips_per_video=1, of_compute=0.99, clips_per_second=9.0),
        _record(records.END_TO_END, "b", clips_per_video=4, of_compute=0.85, clips_per_second=9.0),
    ]
    values = [goal.find(found) for goal in records.GOALS]
    assert values == [400.0, 0.21, None, None, 4.0, pytest.approx(0.2), None, 0.85]
    reached = [g.is_reached(v) for g, v in zip(records.GOALS, values, strict=True) if v is not None]
    assert reached == [True, True, True, True, False]
    for record in found:
        record.values["matrix_tflops"] = 700.0
    text = page.page(Report({"GPU": "one"}, records=found))
    assert "| at least 90.0 % | 85.0 % | **below the goal** |" in text
    assert "| at least 380 clips/s | 400 clips/s | reached |" in text
    assert "Large matrix products: 700 TFLOP/s" in text


def test_a_line_gives_the_record_back():
    record = Record("steps", "a", "one", "batch 2", {"seconds": 0.1}, "")
    assert Record.of_line(record.to_line()) == record


def test_outcome_of_tests(tmp_path):
    cases = "def test_good(): pass\ndef test_bad(): assert 0\n"
    cases += "import pytest\n@pytest.mark.skip\ndef test_left(): pass\n"
    (tmp_path / "test_three.py").write_text(cases)
    found = report.run_tests(["-q", "-p", "no:cacheprovider", str(tmp_path)], 1.0)
    assert (found.num_passed, found.num_skipped, len(found.failed)) == (1, 1, 1)
    assert found.failed[0].endswith("test_three::test_bad")
    assert not found.is_good
    assert "1 passed, 1 failed, 1 skipped" in page.page(Report({}, tests=found))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is measured")
def test_a_machine_without_a_gpu_is_an_error(tmp_path):
    done = run_tool("tools/gpu_report.py", "--output", tmp_path / "page.md")
    assert done.returncode == 2
    assert done.stderr.startswith("error: torch must find a CUDA device to measure it, got none")
    assert list(tmp_path.iterdir()) == []


def test_the_page_in_the_documentation_is_measured_or_says_that_it_is_not():
    text = (ROOT / "docs/benchmarks_gpu.md").read_text()
    assert text == page.page(None) or "| driver |" in text
    assert "the numbers mean nothing" not in text


def test_the_plain_form_casts_each_weight_for_itself():
    """The fast form casts the weights of a block before it runs."""
    cfg = settings.S.read(SETTING)
    batch = steps.make_batch(cfg, 2)
    seen = {}
    for form in (steps.FAST, steps.PLAIN):
        state = steps.make_state(cfg, form, SETTING.device)
        norm = state.bare.blocks[0].norm1
        norm.register_forward_hook(
            lambda module, *_, form=form: seen.__setitem__(form, (module.weight.dtype,))
        )
        step = steps.step_of(cfg, state, batch, SETTING.device, "bfloat16", form)
        names, sums, _ = step(0)
        assert names[0] == "loss"
        seen[form] += (float(sums[1] / sums[0]),)
    assert seen[steps.FAST][0] == torch.bfloat16
    assert seen[steps.PLAIN][0] == torch.float32
    assert seen[steps.FAST][1] == pytest.approx(seen[steps.PLAIN][1], rel=0.02)


def test_a_batch_has_what_the_method_needs():
    ibot = steps.make_batch(settings.IBOT.read(SETTING), 3)
    assert [len(kind.clips) for kind in ibot.views] == [6, 6]
    assert [kind.mask is not None for kind in ibot.views] == [True, False]
    assert [kind.clips.shape[-1] for kind in ibot.views] == [32, 16]
    classes = steps.make_batch(settings.FINETUNING.read(SETTING), 3)
    assert classes.labels.shape == (3,)
    assert classes.mask is None
