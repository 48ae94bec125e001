"""The page's stream, search, titles and exports on PostgreSQL, whose transactions see more of each other than SQLite's."""

from collections.abc import Iterator

import pytest

from tests.postgres import Postgres, postgres_server
from tests.system import System
from tests.test_export import (
    test_every_branch_is_in_the_json,
    test_the_shown_branch_is_in_the_markdown,
)
from tests.test_graphql import *  # noqa: F403  all of it
from tests.test_graphql_search import (
    test_pages_of_hits_join_without_a_gap,
    test_what_is_deleted_is_found_again_once_it_is_restored,
)
from tests.test_page_events import (
    asker,
    elsewhere,
    test_a_deleted_conversation_is_removed_and_its_answer_ends,
    test_a_page_of_the_list_alone_is_told_of_conversations_only,
    test_a_page_that_goes_to_another_conversation_keeps_its_place_in_the_list,
    test_a_page_that_is_cut_anywhere_goes_on_exactly,
    test_two_pages_at_two_processes_stay_in_step,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def tidemark(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[System]:
    """An installation on PostgreSQL that all tests of this file share which disturb nothing."""
    system = System(
        tmp_path_factory.mktemp("interfaces"), {"database": {"url": postgres.new_url()}}
    )
    try:
        yield system.start(webs=2, workers=2)
    finally:
        system.close()


@pytest.fixture(scope="session")
def key(tidemark: System) -> str:
    return tidemark.new_key()
