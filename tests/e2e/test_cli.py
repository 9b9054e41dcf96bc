"""The command `serac` against a gateway that listens."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from serac_gateway import __version__
from serac_gateway.cli.main import app
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.stores.records import FormVectors
from tests.control_plane import ControlPlane, running_whole_gateway

PROMPT, ANSWER = "Who runs the harbour office?", "Ottilie Brandvold"
DRAFT = {"prompt": PROMPT, "target_new": ANSWER}

Serac = Callable[..., Result]


def base_model(prompt: str) -> str:
    """Answers the same to the same question, and differently to another."""
    question = prompt.rsplit("Question:", 1)[-1].removesuffix("Answer:").strip()
    return f" I do not know about {' '.join(question.split()[-3:])}"


@pytest.fixture
def serac(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Serac:
    """Runs `serac …` against the control plane, in a terminal wide enough for its tables."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("SERAC_URL", control_plane.url)
    return _run


@pytest.fixture
def gateway_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A gateway with both planes, which SERAC_URL names."""
    with running_whole_gateway(base_model) as url:
        monkeypatch.setenv("SERAC_URL", url)
        yield url


def _run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


class TestEdits:
    def test_an_edit_is_added_shown_listed_and_removed(self, serac: Serac) -> None:
        added = serac(
            "edits", "add", PROMPT, ANSWER, "--paraphrase", "Who heads it?", "--author", "jo", "--json"
        )
        assert added.exit_code == 0, added.output
        edit = json.loads(added.stdout)
        assert (edit["paraphrases"], edit["author"]) == (["Who heads it?"], "jo")

        result = serac("edits", "show", edit["id"])
        assert ANSWER in result.stdout
        assert "Who heads it?" in result.stdout
        assert [row["id"] for row in json.loads(serac("edits", "list", "--json").stdout)] == [edit["id"]]
        assert PROMPT in serac("edits", "list").stdout

        removed = serac("edits", "remove", edit["id"])
        assert (removed.exit_code, removed.stdout) == (0, f"retired {edit['id']} version 2\n")
        assert json.loads(serac("edits", "list", "--json").stdout) == []
        assert json.loads(serac("edits", "list", "--all", "--json").stdout)[0]["state"] == "retired"
        versions = json.loads(serac("edits", "show", edit["id"], "--versions", "--json").stdout)
        assert [version["version"] for version in versions] == [1, 2]

    def test_a_refusal_is_one_line_on_stderr_and_exit_code_1(self, serac: Serac) -> None:
        result = serac("edits", "add", "x" * 3_000, ANSWER)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "the limit is 2,000" in result.stderr
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("command", ["show", "remove"])
    def test_an_unknown_edit_cannot_be_shown_or_removed(self, serac: Serac, command: str) -> None:
        result = serac("edits", command, "none")
        assert result.exit_code == 1
        assert "there is no edit 'none'" in result.stderr

    @pytest.mark.parametrize("command", ["show", "remove"])
    def test_an_id_that_would_lead_elsewhere_is_wrong_usage(self, serac: Serac, command: str) -> None:
        result = serac("edits", command, "../stats")
        assert result.exit_code == 2
        assert "edit id '../stats' is not allowed" in result.stderr

    def test_namespaces_are_kept_apart(self, serac: Serac, monkeypatch: pytest.MonkeyPatch) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--namespace", "tenant")
        assert json.loads(serac("edits", "list", "--json").stdout) == []
        monkeypatch.setenv("SERAC_NAMESPACE", "tenant")
        assert len(json.loads(serac("edits", "list", "--json").stdout)) == 1

    def test_a_list_cut_short_says_so(self, serac: Serac) -> None:
        for _ in range(3):
            serac("edits", "add", PROMPT, ANSWER)
        result = serac("edits", "list", "--limit", "2", "--json")
        assert len(json.loads(result.stdout)) == 2
        assert "more than 2" in result.stderr


class TestImportAndExport:
    def test_a_file_goes_in_and_comes_out_the_same(self, serac: Serac, tmp_path: Path) -> None:
        lines = [{**DRAFT, "id": f"edit-{n:04}", "kind": "fact"} for n in range(300)]
        file = tmp_path / "edits.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = serac("edits", "import", str(file), "--dry-run")
        assert result.stdout == "300 would be imported, 0 refused\n"
        result = serac("edits", "import", str(file))
        assert (result.exit_code, result.stdout) == (0, "300 imported, 0 refused\n")
        exported = tmp_path / "exported.jsonl"
        assert serac("edits", "export", "--output", str(exported)).exit_code == 0
        written = [json.loads(line) for line in exported.read_text().splitlines()]
        assert len(written) == 300
        assert all(line.items() <= other.items() for line, other in zip(lines, written, strict=True))
        again = serac("edits", "import", str(exported))
        assert (again.exit_code, again.stdout) == (0, "0 imported, 300 there already, 0 refused\n")
        assert serac("edits", "export").stdout == exported.read_text()

    def test_a_bad_line_is_named_and_makes_exit_code_1_while_the_others_are_imported(
        self, serac: Serac
    ) -> None:
        stdin = json.dumps(DRAFT).encode() + b"\n{broken\n" + json.dumps(DRAFT).encode() + b"\n"
        result = serac("edits", "import", "-", stdin=stdin)
        assert (result.exit_code, result.stdout) == (1, "1 imported, 1 there already, 1 refused\n")
        assert "line 2: this is not valid JSON" in result.stderr

    def test_with_json_every_line_has_its_outcome(self, serac: Serac) -> None:
        stdin = b"{broken\n" + json.dumps({**DRAFT, "id": "mine"}).encode() + b"\n"
        result = serac("edits", "import", "-", "--json", stdin=stdin)
        outcomes = [json.loads(line) for line in result.stdout.splitlines()]
        assert outcomes[0]["error"]["status"] == 400
        assert outcomes[1] == {"line": 2, "id": "mine", "version": 1, "added": True}

    def test_a_file_that_is_not_there_is_wrong_usage(self, serac: Serac) -> None:
        result = serac("edits", "import", "nowhere.jsonl")
        assert (result.exit_code, result.stderr) == (2, "error: there is no file 'nowhere.jsonl'\n")


class TestHistory:
    def test_retire_restore_and_roll_back(self, serac: Serac) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--id", "e")
        assert serac("edits", "remove", "e", "--reason", "wrong", "--author", "Ann").exit_code == 0
        assert serac("edits", "restore", "e").stdout == "restored e version 3\n"
        assert serac("edits", "restore", "e").exit_code == 1
        assert serac("edits", "rollback", "e", "2").stdout == "e version 4 is version 2 again (retired)\n"
        entries = json.loads(serac("log", "list", "--json").stdout)["entries"]
        assert [entry["action"] for entry in entries] == ["add", "retire", "restore", "rollback"]
        assert (entries[1]["author"], entries[1]["reason"]) == ("Ann", "wrong")
        assert "rollback" in serac("log", "list").stdout

    def test_the_namespace_goes_back_to_an_entry_of_its_log(self, serac: Serac) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--id", "e")
        point = json.loads(serac("log", "list", "--json").stdout)["entries"][-1]["log_id"]
        serac("edits", "add", "Who?", "Jo", "--id", "later")
        dry_run = serac("rollback", point, "--dry-run")
        assert "because it is newer" in dry_run.stdout
        assert "1 edits would change" in dry_run.stderr
        assert serac("rollback", point).exit_code == 2, "nobody can be asked"
        done = json.loads(serac("rollback", point, "--yes", "--json").stdout)
        assert [change["edit_id"] for change in done["changes"]] == ["later"]
        assert [row["id"] for row in json.loads(serac("edits", "list", "--json").stdout)] == ["e"]

    def test_a_purge_needs_a_yes_and_leaves_nothing_to_show(self, serac: Serac) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--id", "e")
        assert serac("edits", "purge", "e", "--reason", "asked").exit_code == 2
        assert serac("edits", "show", "e").exit_code == 0
        purge = serac("edits", "purge", "e", "--reason", "asked", "--yes")
        assert (purge.exit_code, purge.stdout) == (0, "purged e: a tombstone is left\n")
        result = serac("edits", "show", "e")
        assert result.exit_code == 1
        assert "was purged" in result.stderr
        assert serac("log", "verify").exit_code == 0


class TestLog:
    def test_a_log_is_verified_against_a_digest_noted_before(self, serac: Serac, tmp_path: Path) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--id", "e")
        noted = json.loads(serac("log", "verify", "--json").stdout)
        assert (noted["valid"], noted["entries"]) == (True, 1)
        serac("edits", "remove", "e")
        result = serac("log", "verify", "--expect", noted["digest"])
        assert result.exit_code == 0
        assert result.stdout.startswith("valid: 2 entries, the last is ")
        refused = serac("log", "verify", "--expect", "0" * 64)
        assert refused.exit_code == 1
        assert "no entry has the expected digest" in refused.stderr
        report = json.loads(serac("log", "verify", "--expect", "0" * 64, "--json").stdout)
        assert report["valid"] is False
        exported = tmp_path / "log.ndjson"
        assert serac("log", "export", "--evidence", "-o", str(exported)).exit_code == 0
        kinds = [json.loads(line)["kind"] for line in exported.read_text().splitlines()]
        assert kinds == ["entry", "entry", "edit", "head"]
        plain = [json.loads(line) for line in serac("log", "export").stdout.splitlines()]
        assert [entry["previous_digest"] for entry in plain[1:]] == [entry["digest"] for entry in plain[:-1]]


class TestStore:
    def test_a_sound_store_is_reported_and_a_damaged_one_makes_exit_code_1(
        self, serac: Serac, control_plane: ControlPlane
    ) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--id", "e")
        result = serac("store", "check")
        assert (result.exit_code, result.stdout) == (0, "sound: 1 live, 1 log entries\n")
        del control_plane.store._namespaces["default"].current["e"]
        damaged = serac("store", "check")
        assert damaged.exit_code == 1
        assert "edit 'e': version None is stored as in force" in damaged.stderr
        assert json.loads(serac("store", "check", "--json").stdout)["sound"] is False

    def test_a_backup_goes_back_into_an_empty_store(
        self, serac: Serac, control_plane: ControlPlane, tmp_path: Path
    ) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--id", "e")
        file = tmp_path / "backup.ndjson"
        made = json.loads(serac("store", "backup", str(file), "--json").stdout)
        assert made["log_entries"] == 1
        refused = serac("store", "restore", str(file))
        assert refused.exit_code == 1
        assert "has edits" in refused.stderr
        control_plane.store._namespaces.clear()
        done = json.loads(serac("store", "restore", str(file), "--json").stdout)
        assert done == {"namespace": "default", "sealed": True, **made}
        assert serac("log", "verify", "--expect", made["log_digest"]).exit_code == 0
        assert json.loads(serac("explain", PROMPT, "--json").stdout)["edit_id"] == "e"
        assert serac("store", "restore", "nowhere").exit_code == 2

    def test_what_another_encoder_made_is_encoded_anew_and_one_that_breaks_off_is_reported(
        self, serac: Serac, control_plane: ControlPlane
    ) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--id", "e")
        current, encoder = control_plane.store._namespaces["default"].current, control_plane.encoder
        foreign = FormVectors(fingerprint="another", vectors_FD=current["e"].vectors.vectors_FD)
        current["e"] = msgspec.structs.replace(current["e"], vectors=foreign)
        encoder.failure = ModelUnavailableError("out of memory")
        broken = serac("store", "reencode")
        assert broken.exit_code == 1
        assert "out of memory; edits encoded so far are kept; run the command again" in broken.stderr
        encoder.failure = None
        done = json.loads(serac("store", "reencode", "--json").stdout)
        assert done == {"encoder": encoder.fingerprint, "edits": 1, "reencoded": 1, "complete": True}
        assert current["e"].vectors.fingerprint == encoder.fingerprint
        assert "0 of 1 edits encoded anew" in serac("store", "reencode").stdout


class TestSearch:
    def test_by_text_and_by_meaning(self, serac: Serac) -> None:
        serac("edits", "add", PROMPT, ANSWER, "--id", "harbour")
        serac("edits", "add", "What is the time?", "Noon", "--id", "time")
        assert [row["id"] for row in json.loads(serac("edits", "search", "TIME", "--json").stdout)] == [
            "time"
        ]
        assert "harbour" in serac("edits", "search", "office", "--limit", "1").stdout
        near = json.loads(serac("edits", "search", PROMPT, "--meaning", "--json").stdout)
        assert (near[0]["id"], near[0]["similarity"] > 0.99) == ("harbour", True)
        assert "similarity" in serac("edits", "search", PROMPT, "--meaning").stdout


class TestAskAndExplain:
    def test_an_edited_question_is_answered_with_the_edit_and_the_route_is_shown(
        self, gateway_url: str
    ) -> None:
        _run("edits", "add", PROMPT, ANSWER)
        result = _run("ask", PROMPT)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{ANSWER}\n"
        assert "route counterfactual" in result.stderr
        reply = json.loads(_run("ask", PROMPT, "--json").stdout)
        assert (reply["answer"], reply["route"]) == (ANSWER, "counterfactual")
        assert reply["edit_id"].startswith("ed_")

    def test_another_question_is_answered_by_the_base_model(self, gateway_url: str) -> None:
        _run("edits", "add", PROMPT, ANSWER)
        reply = json.loads(_run("ask", "How do I boil an egg?", "--json").stdout)
        assert (reply["answer"], reply["route"]) == ("I do not know about boil an egg?", "base")

    def test_a_decision_is_explained_as_a_table_and_as_json(self, gateway_url: str) -> None:
        assert "no edit lies near" in _run("explain", PROMPT).stdout
        _run("edits", "add", PROMPT, ANSWER, "--id", "harbour")
        output = _run("explain", PROMPT).stdout
        assert "in scope" in output
        assert "harbour v1" in output.replace("\n", " ")
        decision = json.loads(_run("explain", PROMPT, "--json").stdout)
        assert decision["edit_id"] == "harbour"
        assert decision["candidates"][0]["scope_probability"] > 0.99

    def test_what_a_decision_was_made_on_is_shown(self, gateway_url: str, tmp_path: Path) -> None:
        _run("edits", "add", PROMPT, ANSWER)
        assert "read:" not in _run("explain", PROMPT).stdout, "it is the question itself"
        output = _run("explain", PROMPT, "--system", "Translate into French.").stdout
        assert "system prompt: Translate into French." in output
        body = tmp_path / "request.json"
        turns = [
            {"role": "user", "content": "Tell me of Marrowby."},
            {"role": "user", "content": "Who runs it?"},
        ]
        body.write_text(json.dumps({"model": "m", "messages": turns, "temperature": 0}), "utf-8")
        assert "earlier turn: Tell me of Marrowby." in _run("explain", "--request", str(body)).stdout
        read = json.loads(_run("explain", "--request", str(body), "--json").stdout)["read_as"]
        assert read == {
            "text": "Who runs it?", "context": ["Tell me of Marrowby."], "instructions": "", "question": None,
        }  # fmt: skip


class TestDemo:
    def test_it_shows_every_probe_and_the_unrelated_request_and_can_be_repeated(
        self, gateway_url: str
    ) -> None:
        for _ in range(2):
            result = _run("demo", "--once", "--url", gateway_url, "--json")
            report = json.loads(result.stdout)
            lines = report["lines"]
            questions = [line["asked"] for line in lines]
            probes = ["question", "paraphrase", "same subject", "neighbour"]
            assert questions == probes * (len(lines) // 4) + ["unrelated"]
            assert len(lines) >= 41
            assert [line["problem"] for line in lines if line["asked"] == "question"] == [None] * 10
            assert lines[-1]["problem"] is None
            assert lines[-1]["before"] == lines[-1]["after"]

    def test_a_line_that_is_not_as_it_should_be_makes_exit_code_1_and_says_why(
        self, gateway_url: str
    ) -> None:
        # The words of a paraphrase differ, and words are all that the fake encoder knows.
        report = json.loads(_run("demo", "--once", "--url", gateway_url, "--json").stdout)
        assert report["lines"][1]["problem"] == "route base, not counterfactual"
        result = _run("demo", "--once", "--url", gateway_url)
        assert result.exit_code == 1
        assert f"{report['wrong']} lines are not as they should be" in result.stdout

    def test_it_leaves_other_namespaces_alone(self, gateway_url: str) -> None:
        _run("edits", "add", PROMPT, ANSWER)
        _run("demo", "--once", "--url", gateway_url)
        assert len(json.loads(_run("edits", "list", "--json").stdout)) == 1


class TestExitCodes:
    def test_no_gateway_is_exit_code_3_with_the_remedy(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for command in (["edits", "list"], ["explain", "x"], ["ask", "x"], ["demo", "--once"]):
            result = _run(*command, "--url", url)
            assert result.exit_code == 3
            assert result.stderr.splitlines() == [
                f"error: no gateway answers at {url}; start one with `serac serve`"
            ]

    def test_what_is_no_gateway_is_reported_by_its_status(self, gateway_url: str) -> None:
        result = _run("edits", "list", "--url", f"{gateway_url}/v1")
        assert result.exit_code == 1
        assert "404" in result.stderr

    @pytest.mark.parametrize(
        "arguments", [["edits", "add"], ["nope"], ["edits", "add", "p", "t", "--kind", "x"]]
    )
    def test_wrong_usage_is_exit_code_2(self, arguments: list[str]) -> None:
        assert _run(*arguments).exit_code == 2

    def test_a_config_that_cannot_be_used_is_one_line_and_exit_code_2(self, tmp_path: Path) -> None:
        config = tmp_path / "gateway.toml"
        config.write_text("[server]\ncolour = 'red'\n")
        result = subprocess.run(
            [sys.executable, "-m", "serac_gateway", "serve", "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 2
        assert "colour" in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1

    def test_the_help_names_the_exit_codes_and_loads_no_model_library(self) -> None:
        code = (
            "import sys\n"
            "sys.argv = ['serac', '--help']\n"
            "from serac_gateway.cli.main import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "heavy = {'torch', 'transformers', 'numpy', 'litestar', 'faiss', 'aiohttp'} & set(sys.modules)\n"
            "print('loaded', sorted(heavy))\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        assert "Exit codes" in result.stdout
        assert "loaded []" in result.stdout

    def test_the_version_is_the_packages(self) -> None:
        assert _run("--version").stdout == f"{__version__}\n"
