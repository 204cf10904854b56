//! The command line: runs the service, or manages what lies in its database.

use crate::{
    RestApi, Settings,
    api::NewKey,
    clock::{ahead, now},
    store::{self, SharedStore, StoreError},
    vault::Vault,
};
use anyhow::{Context as _, bail};
use chassis::settings::Configuration;
use clap::{Parser, Subcommand};
use domain::{
    ApiKeyId, Scopes, ToolRule, ToolRules, api_key::ApiKey, page::PageRequest, tenant, tenant::TenantStatus,
};
use serde_json::json;
use std::{process::ExitCode, time::Duration};

/// Contexts, tools, API keys and executions over REST and gRPC; the owner of the database.
#[derive(Parser)]
#[command(name = "rest-api", version)]
struct Cli {
    #[command(flatten)]
    chassis: chassis::Args,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Tenants: the owners of everything else.
    #[command(subcommand)]
    Tenants(Tenants),
    /// API keys. A tenant's first one comes from here.
    #[command(subcommand)]
    Keys(Keys),
    /// Encrypts every tool's credentials with the first of the configured credentials keys.
    Rekey,
    /// Brings the database's schema up to date, as every start does.
    Migrate,
    /// Ends with 0 when the service that runs here is ready.
    Health,
}

#[derive(Subcommand)]
enum Tenants {
    /// Makes a tenant.
    Create {
        /// Letters, digits, '-', '_' and '.'.
        name: String,
        /// Succeeds when the tenant is there already.
        #[arg(long)]
        if_missing: bool,
    },
    /// Lists all tenants.
    List,
    /// Refuses all of a tenant's keys.
    Suspend {
        /// The tenant.
        name: String,
    },
    /// Accepts a suspended tenant's keys again.
    Activate {
        /// The tenant.
        name: String,
    },
}

#[derive(Subcommand)]
enum Keys {
    /// Makes a key and prints its secret, this once.
    Create {
        /// Whose key it is.
        #[arg(long)]
        tenant: String,
        /// A person's name for it.
        #[arg(long, default_value = "made by command")]
        name: String,
        /// Separated by commas, or 'all'. Unless given, every scope that concerns its tenant only: all but
        /// platform:observe, with which the telemetry of all tenants can be seen.
        #[arg(long, value_parser = scopes, default_value_t = Scopes::of_a_tenant())]
        scopes: Scopes,
        /// The tools that it may see and call, e.g. 'github_*'; may be given several times. All, unless given.
        #[arg(long, value_name = "PATTERN", num_args = 1..)]
        tools: Vec<String>,
        /// Refused after this time, e.g. 90d.
        #[arg(long, value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        /// Prints the record as JSON, with the secret in it.
        #[arg(long)]
        json: bool,
    },
    /// Lists a tenant's keys.
    List {
        /// Whose keys.
        #[arg(long)]
        tenant: String,
    },
    /// Revokes a key.
    Revoke {
        /// Whose key it is.
        #[arg(long)]
        tenant: String,
        /// The key's id, as listed.
        id: ApiKeyId,
    },
}

fn scopes(text: &str) -> Result<Scopes, domain::principal::UnknownScope> {
    if text == "all" {
        Ok(Scopes::all())
    } else {
        text.parse()
    }
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = match cli.command {
        None => return chassis::serve::<RestApi>(&cli.chassis),
        Some(Command::Health) => return chassis::tell_health::<RestApi>(&cli.chassis),
        Some(command) => command,
    };
    match manage(&cli.chassis, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rest-api: {}", chassis::causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn manage(args: &chassis::Args, command: Command) -> anyhow::Result<()> {
    let configuration: Configuration<Settings> = chassis::settings::load(args.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let settings = configuration.service;
        let store = store::connect(&settings.database).await?;
        store.migrate().await?;
        let done = match command {
            Command::Tenants(command) => tenants(&store, command).await,
            Command::Keys(command) => keys(&store, command).await,
            Command::Rekey => rekey(&store, &Vault::open(&settings.credentials)?).await,
            Command::Migrate | Command::Health => Ok(()),
        };
        store.close().await;
        done
    })
}

async fn tenants(store: &SharedStore, command: Tenants) -> anyhow::Result<()> {
    let shown = match command {
        Tenants::Create { name, if_missing } => {
            tenant::check_name(&name)?;
            match store.create_tenant(&name).await {
                Err(StoreError::Conflict) if if_missing => vec![store.tenant_by_name(&name).await?],
                Err(StoreError::Conflict) => bail!("there already is a tenant '{name}'"),
                made => vec![made?],
            }
        }
        Tenants::List => store.list_tenants().await?,
        Tenants::Suspend { name } => vec![status(store, &name, TenantStatus::Suspended).await?],
        Tenants::Activate { name } => vec![status(store, &name, TenantStatus::Active).await?],
    };
    for tenant in shown {
        println!("{}  {:<9}  {}", tenant.id, tenant.status.as_str(), tenant.name);
    }
    Ok(())
}

async fn status(store: &SharedStore, name: &str, status: TenantStatus) -> anyhow::Result<tenant::Tenant> {
    store
        .set_tenant_status(name, status)
        .await
        .with_context(|| format!("tenant '{name}'"))
}

async fn keys(store: &SharedStore, command: Keys) -> anyhow::Result<()> {
    match command {
        Keys::Create {
            tenant,
            name,
            scopes,
            tools,
            expires_in,
            json,
        } => {
            let expires_at = expires_in.map(ahead);
            let issued = NewKey {
                name,
                scopes,
                tools: patterns(tools)?,
                expires_at,
            }
            .issue(owner(store, &tenant).await?)?;
            store.create_key(&issued.key, &issued.secret.hash()).await?;
            let secret = issued.secret.expose();
            if json {
                let key = &issued.key;
                println!(
                    "{}",
                    json!({"id": key.id, "tenant": tenant, "name": key.name, "scopes": key.scopes, "tools": key.tools, "expires_at": key.expires_at, "secret": secret})
                );
            } else {
                show(&issued.key);
                println!("{secret}\nKeep it: it is not shown again.");
            }
        }
        Keys::List { tenant } => {
            let owner = owner(store, &tenant).await?;
            let mut page = PageRequest::new(Some(200), None);
            loop {
                let listed = store.list_keys(owner, &page).await?;
                listed.items.iter().for_each(show);
                page.cursor = listed.next_cursor;
                if page.cursor.is_none() {
                    break;
                }
            }
        }
        Keys::Revoke { tenant, id } => {
            let owner = owner(store, &tenant).await?;
            show(&store.revoke_key(owner, id, now()).await.context("key")?);
        }
    }
    Ok(())
}

/// Rules without schemas; none at all: no limit.
fn patterns(tools: Vec<String>) -> anyhow::Result<ToolRules> {
    if tools.is_empty() {
        return Ok(ToolRules::unlimited());
    }
    let rule = |tools| ToolRule {
        tools,
        arguments: None,
    };
    Ok(ToolRules::limited(tools.into_iter().map(rule).collect())?)
}

async fn owner(store: &SharedStore, tenant: &str) -> anyhow::Result<domain::TenantId> {
    let found = store.tenant_by_name(tenant).await;
    Ok(found
        .with_context(|| format!("tenant '{tenant}' (make it with: rest-api tenants create {tenant})"))?
        .id)
}

fn show(key: &ApiKey) {
    let state = if key.is_active(now()) { "active" } else { "refused" };
    let tools: Vec<_> = key.tools.rules().map_or_else(
        || vec!["*"],
        |rules| rules.iter().map(|rule| rule.tools.as_str()).collect(),
    );
    println!(
        "{}  {}…  {:<7}  {}  [{}]  {}",
        key.id,
        key.prefix,
        state,
        key.name,
        key.scopes,
        tools.join(",")
    );
}

/// With those of the upstreams, their tools' are encrypted anew, too.
async fn rekey_upstreams(store: &SharedStore, vault: &Vault, current: &str) -> anyhow::Result<u32> {
    let mut moved = 0;
    loop {
        let old = store.upstream_credentials_to_rekey(current, 100).await?;
        if old.is_empty() {
            return Ok(moved);
        }
        for (id, sealed) in old {
            let new = vault.reseal(&sealed).with_context(|| format!("upstream {id}"))?;
            moved += u32::from(store.rekey_upstream_credentials(id, &sealed, &new).await?);
        }
    }
}

async fn rekey(store: &SharedStore, vault: &Vault) -> anyhow::Result<()> {
    let current = vault
        .current()
        .context("no credentials key is configured (credentials.keys)")?;
    let mut moved = rekey_upstreams(store, vault, current).await?;
    loop {
        let old = store.credentials_to_rekey(current, 100).await?;
        if old.is_empty() {
            println!("{moved} moved; all credentials are encrypted with '{current}'");
            return Ok(());
        }
        for (id, sealed) in old {
            let new = vault.reseal(&sealed).with_context(|| format!("tool {id}"))?;
            moved += u32::from(store.rekey_credentials(id, &sealed, &new).await?);
        }
    }
}
