"""Every fault that users and attackers reported has its tests, by name; most are beside the code it is about.

F1 (text about a question) is a matter of measuring, not of a test: see serac_gateway/docs/results.md.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAULTS: dict[str, tuple[str, ...]] = {
    "F2 replies of our own without CORS headers": (
        "http/test_browsers.py::test_a_listed_page_reads_every_reply_alike",
        "http/test_browsers.py::test_a_listed_page_reads_refusals_and_asks_without_a_key",
    ),
    "F3 forms of a request that pass unread": (
        "attacks/test_request_forms.py::test_a_suppressed_question_never_reaches_the_upstream",
        "attacks/test_request_forms.py::test_a_fact_edit_answers_in_a_form_that_changes_nothing_of_the_question",
    ),
    "F3 the middle of a long message": (
        "unit/routing/test_router.py::test_a_suppressed_question_fires_wherever_it_stands_in_the_message",
        "e2e/test_workers_real_models.py::test_each_worker_decides_as_one_process_does",
    ),
    "F4 our request id is nowhere": (
        "http/test_proxy_headers.py::test_our_request_id_stays_visible_beside_the_upstreams",
        "unit/observability/test_recent_requests.py::test_the_upstreams_id_names_the_request_until_it_is_forgotten",
    ),
    "F5 null where the API has nothing": (
        "http/test_answers_messages.py::test_a_message_is_a_complete_object",
    ),
    "F6 a model that is not found goes to the default upstream": (
        "attacks/test_upstream_account.py::test_a_request_goes_to_the_vendor_of_its_model_in_every_form",
        "http/test_upstreams.py::test_the_list_of_models_is_that_of_all_upstreams",
    ),
    "F7 Azure clients, and a base URL without /v1": (
        "http/test_bad_input.py::test_a_base_url_without_v1_is_named",
        "attacks/test_request_forms.py::test_a_question_that_no_edit_answers_passes_byte_for_byte_in_every_form",
    ),
    "F8 upstream.url with query, fragment or password": (
        "http/test_upstreams.py::test_the_query_of_an_upstreams_url_goes_with_every_request",
        "unit/config/test_loading.py::test_a_password_in_a_refused_url_is_not_shown",
    ),
    "F9 header bytes": ("http/test_proxy_headers.py::test_header_bytes_pass_unchanged",),
    "F10 WebSockets": ("http/test_bad_input.py::test_a_websocket_is_refused_in_words",),
    "F11 a data folder that cannot be made": (
        "attacks/test_data_folders.py::test_a_data_folder_that_cannot_be_is_named_in_one_line",
    ),
    "F12 an open breaker without Retry-After": (
        "unit/data_plane/test_circuit_breaker.py::test_after_failures_in_a_row_it_is_not_asked",
    ),
    "F12 events that one line end separates": (
        "http/test_proxy_streams.py::test_events_that_one_line_end_separates_wait_for_nothing_either",
        "http/test_proxy_streams.py::test_comments_are_no_events_to_clients",
    ),
    "F12 two namespaces in one request": ("http/test_access.py::test_two_namespaces_are_refused",),
    "A1 an admin of one namespace changes another": (
        "attacks/test_tenants.py::test_no_backup_gets_an_admin_into_another_namespace_or_stops_a_start",
        "contracts/test_backups.py::test_what_no_commit_would_have_stored_is_refused_before_anything_is_written",
    ),
    "A1 conflicts show another tenant's answers": (
        "attacks/test_tenants.py::test_conflicts_show_a_tenant_its_own_edits_alone",
    ),
    "A2 one namespace's damage stops every gateway": (
        "attacks/test_damaged_stores.py::"
        "test_a_gateway_starts_beside_what_cannot_be_read_and_keeps_that_namespace_closed",
        "e2e/test_two_gateways.py::test_damage_closes_its_namespace_in_both_and_one_repair_opens_it_in_both",
    ),
    "A3 suppressions evaded by the form of a request": (
        "attacks/test_request_forms.py::test_what_cannot_be_read_is_refused_where_suppressions_are_in_force",
        "attacks/test_request_forms.py::test_a_form_that_hides_its_path_or_its_text_is_not_passed_on",
    ),
    "A4 suppressions fail open under load": (
        "attacks/test_suppression_load.py::"
        "test_a_suppressed_question_is_answered_at_once_while_the_answer_queue_is_full",
        "attacks/test_suppression_load.py::test_a_suppression_holds_while_the_stored_edits_are_loaded",
        "attacks/test_suppression_load.py::test_a_suppression_holds_in_workers_whose_model_process_dies",
        "e2e/test_workers_real_models.py::"
        "test_workers_whose_model_process_hangs_end_their_requests_by_the_policy",
    ),
    "A5 web pages edit, and read by DNS rebinding": (
        "http/test_browsers.py::test_a_page_changes_and_reads_nothing_without_a_key",
        "http/test_browsers.py::test_a_name_that_was_rebound_to_this_machine_reads_and_changes_nothing",
        "http/test_browsers.py::test_a_body_says_that_it_is_json",
    ),
    "A6 a request freezes the process": (
        "e2e/test_bad_input_costs.py::test_a_json_bomb",
        "e2e/test_odd_texts.py::test_a_conversation_of_any_kind_is_decided",
    ),
    "A6 patterns of quadratic work": (
        "unit/test_patterns.py::test_the_work_of_a_pattern_grows_with_the_text_and_not_faster",
        "unit/test_patterns.py::test_no_compiled_pattern_of_a_module_is_left_out",
    ),
    "A6 decisions without deadline or bound": (
        "attacks/test_bounded_work.py::"
        "test_of_many_requests_few_wait_for_a_slow_model_and_none_longer_than_allowed",
        "contracts/test_engine.py::"
        "test_a_decision_beyond_the_limit_is_refused_and_one_that_waits_too_long_ends",
    ),
    "A7 a chat key reaches all of the upstream": (
        "attacks/test_upstream_account.py::test_no_role_reaches_the_account_unless_it_is_allowed",
        "attacks/test_upstream_account.py::test_no_spelling_of_a_path_leaves_the_base_path",
    ),
    "A8 a purge leaves content on the disk": (
        "attacks/test_purged_bytes.py::test_each_of_many_purges_is_off_the_disk_when_it_is_acknowledged",
        "attacks/test_purged_bytes.py::test_what_crashed_rewrites_left_is_removed_at_the_start",
    ),
    "A9 memory over all requests": (
        "http/test_body_memory.py::"
        "test_the_largest_unfinished_bodies_are_refused_and_small_requests_are_served",
        "http/test_upstreams.py::test_a_body_that_does_not_name_its_model_is_not_held_without_end",
    ),
    "A10 damage to files": (
        "attacks/test_data_folders.py::"
        "test_a_lock_file_that_is_removed_lets_no_second_gateway_in_nor_does_another_path",
        "attacks/test_data_folders.py::test_a_torn_tail_costs_nothing_that_was_acknowledged",
        "attacks/test_data_folders.py::test_bit_rot_in_a_converted_model_is_seen",
    ),
    "A11 the newest goes by wall clocks": (
        "contracts/test_clock_skew.py::test_gateways_whose_clocks_differ_make_one_order",
        "e2e/test_two_gateways.py::test_of_edits_that_ask_the_same_the_last_in_the_log_governs_in_both",
    ),
    "A12 a client strips what the gateway adds": (
        "http/test_upstreams.py::test_no_client_can_strip_what_the_gateway_adds",
    ),
    "A12 more connections than files": (
        "http/test_connection_limit.py::test_connections_that_send_nothing_give_way_to_requests",
        "http/test_connection_limit.py::test_the_soft_limit_on_files_is_raised_to_the_hard_one",
    ),
    "A12 a full disk": (
        "attacks/test_data_folders.py::test_a_full_disk_is_named_and_the_store_goes_on_once_there_is_room",
    ),
    "A12 a mute stranger": (
        "attacks/test_data_folders.py::test_a_mute_stranger_on_the_socket_is_an_error_after_a_bound",
        "attacks/test_hostile_clients.py::test_requests_that_drip_in_are_ended_and_keep_nobody_out",
    ),
    "A12 garbage behind a request, two hosts, HTTP/0.9": (
        "http/test_bad_input.py::test_garbage_after_requests_is_refused_when_those_are_answered",
        "http/test_bad_input.py::test_a_request_has_one_host_and_a_version",
    ),
    "A12 what a chat key sees of a decision": (
        "http/test_access.py::test_the_decision_is_shown_to_keys_that_may_read_edits",
    ),
    "A12 folders of killed workers": (
        "attacks/test_data_folders.py::test_temporary_folders_of_killed_gateways_are_removed_and_no_others",
    ),
    "A12 a key in the URL": (
        "http/test_access.py::test_a_key_in_the_url_is_refused_and_goes_no_further",
    ),
    "A12 targets with NUL, prompts of emoji": (
        "e2e/test_odd_texts.py::test_a_target_of_any_text_is_answered_as_it_was_written",
        "e2e/test_odd_texts.py::"
        "test_an_edit_of_any_text_is_asked_for_in_its_own_words_and_costs_nobody_else",
    ),
    "A12 log lines that break": (
        "attacks/test_log_lines.py::"
        "test_every_record_is_one_line_whatever_paths_ids_models_and_questions_hold",
    ),
}  # fmt: skip


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((TESTS / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reported_fault_has_its_tests(fault: str) -> None:
    for name in FAULTS[fault]:
        path, _, function = name.partition("::")
        assert function in functions_of(path), name


def test_no_report_is_left_out() -> None:
    reports = {fault.split()[0] for fault in FAULTS}
    assert reports == {f"F{number}" for number in range(2, 13)} | {f"A{number}" for number in range(1, 13)}
