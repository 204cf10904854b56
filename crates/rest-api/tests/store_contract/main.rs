//! What every store must do, run on SQLite always, and on PostgreSQL where `TEST_POSTGRES_URL` names a server on
//! which databases may be created, e.g. `postgres://postgres@127.0.0.1:5432/postgres`.

#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::cognitive_complexity,
    reason = "a test fails where it stands, and a table of cases is long but simple"
)]

mod contexts;
mod executions;
mod harness;
mod items;
mod keys;
mod leases;
mod races;
mod search;
mod tenants;
mod tools;
mod unavailable;

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
    races::racing_reapers_end_each_execution_once,
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
    tools::another_tenants_tools_do_not_exist,
    executions::an_execution_runs_to_its_outcome,
    executions::executions_are_listed_newest_first,
    executions::a_lost_lease_ends_nothing,
    executions::only_what_is_safe_counts_as_failed,
    executions::old_executions_are_purged,
    executions::another_tenants_executions_do_not_exist,
    leases::one_owner_holds_a_lease_until_it_runs_out,
    unavailable::a_closed_store_says_so,
}
