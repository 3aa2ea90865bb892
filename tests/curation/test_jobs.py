"""Work in processes that are ended when they hang, and replaced when they crash."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from multiprocessing.popen_spawn_posix import Popen

import pytest
from helpers.full_disk import files_limited_to
from helpers.stalling import hanging_to_open

from slowfast_maskfeat.curation.check_videos import check_video
from slowfast_maskfeat.curation.jobs import Failure, Journal, run_jobs, run_threads


def act(item: str) -> str:
    if item == "hang":
        time.sleep(1000)
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "raise":
        raise KeyError("what")
    return item.upper()


def test_each_item_gets_a_result_or_the_reason_why_not():
    items = ["a", "hang", "crash", "b", "raise", "hang ", "c", "crash"]
    results = list(run_jobs(act, items, processes=2, timeout=4.0))
    assert sorted(item for item, _ in results) == sorted(items)
    by_item = dict(results)
    assert [by_item[name] for name in ("a", "b", "c", "hang ")] == ["A", "B", "C", "HANG "]
    assert by_item["hang"] == Failure("hung: not done after 4 s")
    assert by_item["crash"] == Failure("the process that read it crashed (signal SIGSEGV)")
    assert by_item["raise"] == Failure("KeyError: 'what'")


def fill(item: str) -> str:
    if item == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/output/full")
    time.sleep(0.1)
    return item


def test_a_full_disk_ends_the_work():
    done = []
    with pytest.raises(OSError) as raised:
        done.extend(run_jobs(fill, ["a", "full", *"b" * 100], processes=2, timeout=60.0))
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == "/output/full"


def name_process(item: str) -> int:
    return os.getpid()


def test_workers_ignore_the_signals_that_stop_their_parent():
    jobs = run_jobs(name_process, ["a", "b", "c"], processes=1, timeout=60.0)
    _, process = next(jobs)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(process, number)
    assert [result for _, result in jobs] == [process, process]


def test_a_journal_that_can_not_be_written_names_itself(tmp_path):
    journal = Journal(tmp_path / "journal", {"a": 1})
    with files_limited_to(100), pytest.raises(OSError) as raised:
        journal.add("a" * 100, 1)
    journal.close()
    assert raised.value.filename == str(tmp_path / "journal")


def test_nothing_is_started_for_nothing():
    assert list(run_jobs(act, [], processes=4, timeout=1.0)) == []


def test_a_file_on_a_dead_disk_is_given_up(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"never read")
    with hanging_to_open(path):
        begin = time.monotonic()
        ((_, result),) = run_jobs(check_video, [str(path)], processes=1, timeout=1.0)
        assert time.monotonic() - begin < 20
    assert result == Failure("hung: not done after 1 s")


def test_a_journal_keeps_what_is_done_and_forgets_a_cut_line(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    journal = Journal(path, {"full": False})
    journal.add("a.mp4", None)
    journal.add("caf\udce9.mp4", Failure("no such file"))
    journal.close()
    with open(path, "a") as file:
        file.write('["b.mp4", nu')
    again = Journal(path, {"full": False})
    assert again.done == {"a.mp4": None, "caf\udce9.mp4": Failure("no such file")}
    again.add("b.mp4", {"fps": 25.0})
    again.close()
    assert Journal(path, {"full": False}).done["b.mp4"] == {"fps": 25.0}
    with pytest.raises(ValueError, match="must be those of the interrupted run"):
        Journal(path, {"full": True})


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"a": 1}\n["x", 1, null]\ngarbage\n["y", 2, null]\n', 3),
        (b'{"a": 1}\n["x", 1, null]\n["y"]\n', 3),
        (b'{"a": 1}\n7\n', 2),
        (b"\0\0\0\0\n", 1),
        (b'{"a": 1}\n["\xff", 1, null]\n', 2),
    ],
)
def test_a_damaged_journal_is_named_with_its_line(content, line, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"journal\.jsonl, line {line}: .*damaged; remove"):
        Journal(path, {"a": 1})
    assert path.read_bytes() == content
    assert Journal(path, {"a": 1}, force=True).done == {}


def test_ctrl_c_while_a_process_starts_waits_until_it_has_its_work(monkeypatch, capfd):
    launch, launched = Popen._launch, []

    def interrupted_launch(self, process):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # here the interpreter would raise
        launch(self, process)
        launched.append(self.pid)

    monkeypatch.setattr(Popen, "_launch", interrupted_launch)
    # A second thread, which may be the one that the signal comes to.
    release = threading.Event()
    threading.Thread(target=release.wait, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(act, ["a"], processes=1, timeout=60.0))
    release.set()
    assert launched
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "Traceback" not in capfd.readouterr().err


def test_threads_give_a_result_or_the_reason_and_abandon_one_that_hangs():
    release = threading.Event()

    def work(item: str) -> str:
        if item == "hang":
            release.wait()
        if item == "raise":
            raise KeyError("what")
        return item.upper()

    begin = time.monotonic()
    found = list(run_threads(work, ["hang", "a", "raise", "b"], threads=2, timeout=1.0))
    release.set()
    assert time.monotonic() - begin < 20
    assert dict(found) == {
        "hang": Failure("hung: not done after 1 s"),
        "a": "A",
        "raise": Failure("KeyError: 'what'"),
        "b": "B",
    }
    assert list(run_threads(work, [], threads=2, timeout=1.0)) == []


def test_a_journal_names_the_settings_that_differ_and_force_starts_over(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path, {"top": 1, "names": ["x"] * 1000, "opts": []}).close()
    with pytest.raises(
        ValueError, match=r"but names was .*, and is \[\], and opts differs"
    ) as raised:
        Journal(path, {"top": 1, "names": [], "opts": ["A", "1"]})
    assert "remove the file to start over" in str(raised.value)
    assert len(str(raised.value)) < 400
    with pytest.raises(ValueError, match="add --force to start over"):
        Journal(path, {"top": 2}, force=False)
    assert Journal(path, {"top": 2}, force=True).done == {}
    assert Journal(path, {"top": 2}).done == {}
