//! The house's rules about what stands in a cluster, one function each, named for what it says.

mod contents;
mod edge;
mod files;
mod flows;
mod pods;
mod references;
mod scrapes;
mod settings;
mod structure;
#[cfg(test)]
mod tests;

use crate::world::World;

/// What is wrong, a line each.
type Rule = fn(&World<'_>) -> Vec<String>;

/// A rule with its function's name.
macro_rules! rules {
    ($($module:ident::$rule:ident),* $(,)?) => {
        &[$((stringify!($rule), $module::$rule as Rule)),*]
    };
}

/// All of them.
pub(crate) const RULES: &[(&str, Rule)] = rules![
    structure::namespaces_exist_and_say_what_pods_may_do,
    structure::objects_are_there_once_and_can_be_applied,
    structure::names_are_names_of_dns,
    structure::everything_says_what_it_is_part_of,
    structure::selectors_pick_their_own_pods_alone,
    structure::services_lead_to_ports_that_exist,
    structure::autoscalers_scale_something_that_leaves_it_to_them,
    structure::disruption_budgets_let_some_go_and_some_stay,
    structure::who_keeps_data_is_never_there_twice,
    pods::runs_as_a_numbered_user_that_is_not_root,
    pods::gains_no_privileges,
    pods::has_no_capabilities,
    pods::writes_to_volumes_only,
    pods::has_its_system_calls_filtered,
    pods::shares_nothing_with_its_node,
    pods::asks_for_cpu_and_memory_and_has_a_limit_of_memory,
    pods::is_probed_on_ports_that_it_has,
    pods::gets_no_variables_of_services,
    pods::has_a_service_account_and_no_token_of_it,
    pods::names_each_port_once,
    references::what_pods_read_is_there,
    references::secrets_are_files_and_read_by_those_they_are_for,
    references::volumes_are_declared_and_used,
    references::configuration_is_read_by_somebody,
    flows::policies_start_from_a_closed_namespace,
    flows::policies_and_their_peers_match_pods,
    flows::what_a_policy_lets_out_arrives,
    flows::what_must_talk_gets_through,
    flows::what_must_not_talk_is_kept_apart,
    edge::only_api_and_mcp_are_open_to_the_outside,
    edge::what_is_behind_the_edge_exists,
    edge::the_edge_is_encrypted,
    scrapes::each_job_scrapes_the_pods_that_it_is_for,
    scrapes::prometheus_may_look_where_it_looks,
    scrapes::monitors_find_ports_that_exist,
    settings::services_understand_what_they_are_told,
    settings::settings_reach_a_service,
    settings::pods_are_given_the_time_that_they_need_to_end,
    settings::services_listen_at_the_ports_that_they_declare,
    settings::services_let_each_other_in,
    settings::the_name_of_the_edge_is_served,
    contents::dashboards_and_rules_are_those_of_the_clone,
    contents::images_are_those_of_compose,
    contents::addresses_are_those_of_services,
    contents::certificates_carry_the_names_that_are_called,
];

/// What is wrong with what stands in a cluster together.
pub(crate) fn check(world: &World<'_>) -> Vec<String> {
    let of = |(name, rule): &(&str, Rule)| {
        let name = name.replace('_', " ");
        rule(world)
            .into_iter()
            .map(move |finding| format!("{finding} ({name})"))
            .collect::<Vec<_>>()
    };
    RULES.iter().flat_map(of).collect()
}
