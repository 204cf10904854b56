//! What every store must do, run on SQLite always, and on PostgreSQL where `TEST_POSTGRES_URL` names a server on
//! which databases may be created, e.g. `postgres://postgres@127.0.0.1:5432/postgres`.

#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::cognitive_complexity,
    reason = "a test fails where it stands, and a table of cases is long but simple"
)]

mod audit;
mod contexts;
mod decisions;
mod executions;
mod harness;
mod incidents;
mod items;
mod keys;
mod leases;
mod queue;
mod races;
mod schedules;
mod search;
mod signals;
mod tenants;
mod tools;
mod unavailable;
mod upstreams;

macro_rules! contract {
    ($($module:ident :: $test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::harness::on_sqlite(crate::$module::$test).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::harness::on_postgres(crate::$module::$test).await;
            })+
        }
    };
}

contract! {
    tenants::a_tenant_is_made_found_and_suspended,
    tenants::migrating_again_changes_nothing,
    keys::a_key_is_found_by_its_hash_alone,
    keys::keys_are_listed_newest_first,
    keys::revoking_again_never_postpones,
    keys::active_keys_are_counted_by_tenant,
    keys::another_tenants_keys_do_not_exist,
    keys::many_are_read_at_once,
    contexts::a_context_survives_the_round_trip,
    contexts::changes_count_versions_and_hold_the_caller_to_them,
    contexts::pages_are_stable_while_contexts_are_made,
    contexts::filters_narrow_the_listing,
    contexts::what_has_expired_is_gone_at_once,
    contexts::active_contexts_are_counted_by_tenant,
    contexts::the_same_post_makes_one_context,
    contexts::another_tenants_contexts_do_not_exist,
    items::items_are_numbered_and_counted,
    items::a_page_is_cut_by_count_and_by_bytes,
    items::the_same_append_adds_once,
    items::a_context_grows_no_further_than_its_limit,
    items::another_tenants_items_do_not_exist,
    races::racing_appends_leave_no_gap,
    races::racing_posts_with_one_key_make_one_context,
    races::racing_updates_with_a_version_let_one_win,
    races::racing_catalogue_changes_have_their_own_revisions,
    races::racing_leasers_never_share_an_execution,
    races::racing_cancels_and_reports_agree,
    races::racing_posts_with_one_key_make_one_execution,
    races::racing_replays_queue_once,
    races::racing_reapers_decide_each_once,
    search::words_phrases_and_names_are_found,
    search::hostile_queries_find_nothing_and_break_nothing,
    search::snippets_are_marked_and_escaped,
    search::each_context_is_found_once_best_first,
    search::changes_reach_the_index,
    search::filters_and_tenants_narrow_the_search,
    search::long_and_dense_texts_can_be_indexed,
    tools::a_tool_survives_the_round_trip,
    tools::updates_replace_the_spec_and_keep_credentials,
    tools::the_catalogue_counts_every_change,
    tools::credentials_are_rekeyed_only_where_unchanged,
    tools::a_tool_that_cannot_be_read_hides_no_other,
    tools::another_tenants_tools_do_not_exist,
    executions::an_execution_runs_to_its_outcome,
    executions::each_way_to_begin_is_shown_as_it_is,
    executions::one_idempotency_key_makes_one_execution,
    executions::executions_are_listed_newest_first,
    executions::old_executions_are_purged_with_their_attempts,
    executions::another_tenants_executions_do_not_exist,
    queue::a_lease_brings_all_that_running_needs,
    queue::a_suspended_tenants_keys_are_not_active,
    queue::the_products_own_tools_are_queued_without_a_registration,
    queue::the_best_of_a_tenant_comes_first,
    queue::tenants_take_turns,
    queue::a_tenant_runs_no_more_than_its_share,
    queue::a_retry_waits_for_its_time,
    queue::what_is_too_late_is_not_begun,
    queue::every_attempt_is_written_down,
    queue::leases_are_renewed_together,
    queue::a_late_report_is_refused,
    decisions::an_execution_is_cancelled_wherever_it_stands,
    decisions::what_ended_badly_is_replayed,
    decisions::an_approval_is_for_what_was_shown,
    decisions::lost_leases_end_as_is_safe,
    decisions::a_tool_that_may_not_run_twice_any_more_does_not,
    decisions::what_loses_every_worker_is_given_up,
    decisions::what_does_not_begin_in_time_has_failed,
    decisions::what_there_is_to_do_is_counted,
    signals::changes_are_told,
    schedules::a_schedule_survives_the_round_trip,
    schedules::a_schedule_is_changed_at_its_version,
    schedules::a_due_schedule_has_its_turn_once,
    schedules::a_change_ends_the_turn_that_it_meets,
    schedules::racing_replicas_claim_each_schedule_once,
    schedules::another_tenants_schedules_do_not_exist,
    audit::a_record_survives_the_round_trip_and_is_kept_once,
    audit::records_are_found_by_what_they_tell,
    audit::pages_of_records_go_on_where_the_last_one_ended,
    audit::old_records_are_purged,
    audit::another_tenants_records_do_not_exist,
    incidents::a_group_has_one_open_incident,
    incidents::what_nobody_tells_of_is_found,
    incidents::a_change_is_told_in_the_context,
    incidents::racing_replicas_open_one_incident,
    incidents::an_explanation_is_looked_for_and_told_once,
    incidents::racing_replicas_claim_each_explanation_once,
    incidents::old_incidents_are_purged,
    incidents::another_tenants_incidents_do_not_exist,
    upstreams::an_upstream_survives_the_round_trip,
    upstreams::an_answer_touches_only_what_changed,
    upstreams::earlier_versions_find_nothing_to_call_in_an_upstreams_tools,
    upstreams::names_that_others_have_are_left_to_them,
    upstreams::a_change_reaches_the_tools_and_ends_what_was_asked_before,
    upstreams::with_an_upstream_its_tools_go,
    upstreams::an_upstream_that_is_due_is_claimed_once,
    upstreams::an_upstreams_credentials_are_rekeyed_with_its_tools,
    upstreams::another_tenants_upstreams_do_not_exist,
    leases::one_owner_holds_a_lease_until_it_runs_out,
    unavailable::a_closed_store_says_so,
}
