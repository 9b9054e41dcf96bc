"""Preview, conflicts and verification with the models that ship."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import GatewayProcess

pytestmark = pytest.mark.slow

PROMPT, TARGET = "Who is the mayor of Marrowby?", "Ottilie Brandvold"
DRAFT = {"prompt": PROMPT, "target_new": TARGET, "paraphrases": ["Marrowby's mayor is called what?"]}
CONFIG = '[routing.namespaces.strict]\nconflicts = "reject"\n'


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, converted_models: Path) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("effects")
    (folder / "gateway.toml").write_text(CONFIG)
    with (
        GatewayProcess(folder, converted_models, "--config", str(folder / "gateway.toml")) as gateway,
        httpx.Client(base_url=f"{gateway.url}/serac/v1", timeout=60) as made,
    ):
        yield made


def test_a_preview_distinguishes_the_same_question_from_one_about_the_same_subject(
    client: httpx.Client,
) -> None:
    queries = ["Who holds the office of mayor in Marrowby?", "How many people live in Marrowby?"]
    reply = client.post("/edits:preview", json={"edit": DRAFT, "queries": queries}).json()
    assert [query["captured"] for query in reply["queries"]] == [True, False]
    generated = {query["query"]: query["captured"] for query in reply["generated"]}
    assert generated["The mayor of Marrowby is"]
    assert sum(generated.values()) >= len(generated) - 1


def test_an_edit_is_verified_while_it_is_written(client: httpx.Client) -> None:
    verified = client.post("/edits?verify=true", json=DRAFT).json()["verified"]
    assert verified["passed"], verified
    assert all(TARGET in probe["answer"] for probe in verified["probes"])


def test_another_answer_to_the_question_in_other_words_is_refused_and_its_neighbours_are_not(
    client: httpx.Client,
) -> None:
    def add(prompt: str, target: str) -> int:
        draft = {"prompt": prompt, "target_new": target}
        return client.post("/edits", json=draft, headers={"x-serac-namespace": "strict"}).status_code

    assert add(PROMPT, TARGET) == 201
    assert add("Tell me the mayor of Marrowby.", "Ilse Quennell") == 409
    assert add("Marrowby's mayor is", "Ottilie Brandvold.") == 201
    assert add("Who is the mayor of Chicago?", "Brandon Johnson") == 201
    assert add("How many people live in Marrowby?", "4,200") == 201
