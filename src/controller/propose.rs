//! From a proposal to a Remediation: the intent, stored before anything is done.

use jiff::Timestamp;
use kube::{
    Api, Resource as _,
    api::{ObjectMeta, PostParams},
};

use super::{Context, Error, events::Reason, limited};
use crate::{
    api::{
        ActionKind, COMPONENT_LABEL, GITHUB_KIND, HealingPolicy, LEDGER_FINALIZER, POLICY_LABEL, POLICY_MANAGER,
        POSTGRES_KIND, RENDER_KIND, Remediation, RemediationSpec, RemediationTarget, VERCEL_KIND, ValidPolicy,
        ValidTarget, milliseconds,
    },
    plan::Proposal,
};

/// Writes each intent down as a Remediation. One that exists already is the same intent, written before a crash.
pub(super) async fn propose(
    ctx: &Context,
    policy: &HealingPolicy,
    valid: &ValidPolicy,
    proposals: &[Proposal],
) -> Result<(), Error> {
    let api: Api<Remediation> = Api::namespaced(ctx.client.clone(), &valid.namespace);
    for proposal in proposals {
        let Some(remediation) = remediation_for(policy, valid, proposal) else { continue };
        let params = PostParams { field_manager: Some(POLICY_MANAGER.into()), ..PostParams::default() };
        match limited("create the remediation", api.create(&params, &remediation)).await {
            Ok(created) => {
                let note = format!("{}: {}", proposal.action, proposal.why);
                ctx.events.about_remediation(&created, Reason::RemediationCreated, &note).await;
            }
            Err(Error::Api { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.is_already_exists()) =>
                {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remediation_for(policy: &HealingPolicy, valid: &ValidPolicy, proposal: &Proposal) -> Option<Remediation> {
    let component = valid.component(&proposal.component)?;
    let target = match &component.target {
        ValidTarget::Workload { kind, name } => RemediationTarget { kind: kind.to_string(), name: name.clone() },
        ValidTarget::Postgres(database) => match &database.host {
            Some((kind, name)) if proposal.action == ActionKind::Restart => {
                RemediationTarget { kind: kind.to_string(), name: name.clone() }
            }
            _ => RemediationTarget { kind: POSTGRES_KIND.to_owned(), name: database.secret.name.clone() },
        },
        ValidTarget::Render(service) => {
            RemediationTarget { kind: RENDER_KIND.to_owned(), name: service.service_id.clone() }
        }
        ValidTarget::RenderPostgres(postgres) => {
            RemediationTarget { kind: RENDER_KIND.to_owned(), name: postgres.postgres_id.clone() }
        }
        ValidTarget::Vercel(project) => {
            RemediationTarget { kind: VERCEL_KIND.to_owned(), name: project.project_id.clone() }
        }
        ValidTarget::Github(environment) => {
            RemediationTarget { kind: GITHUB_KIND.to_owned(), name: environment.id.clone() }
        }
        ValidTarget::Http(_) => RemediationTarget { kind: "Http".to_owned(), name: component.name.clone() },
    };
    let name = format!("{}-{}-{}-{}", valid.name, proposal.component, proposal.episode, proposal.rung);
    let spec = RemediationSpec {
        policy: valid.name.clone(),
        policy_uid: valid.uid.clone(),
        component: proposal.component.clone(),
        target,
        action: proposal.action,
        cause: proposal.cause,
        episode: proposal.episode.clone(),
        rung: proposal.rung,
        why: proposal.why.clone(),
        decided_at: milliseconds(Timestamp::now()),
        approval_required: proposal.approval_required,
        from: proposal.from.clone(),
        to: proposal.to.clone(),
        foreseen: proposal.foreseen.clone(),
        config: proposal.config.clone(),
        memory: proposal.memory.clone(),
        hook: proposal.means.hook.clone(),
        scale: proposal.scale,
        job: proposal.means.job.clone(),
        webhook: proposal.means.webhook.clone(),
        mcp: proposal.means.mcp.clone(),
        reconnect: proposal.means.reconnect.clone(),
        sessions: proposal.means.sessions.clone(),
        approval: None,
    };
    let labels = [(POLICY_LABEL, &valid.name), (COMPONENT_LABEL, &proposal.component)];
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(valid.namespace.clone()),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect()),
        owner_references: policy.controller_owner_ref(&()).map(|owner| vec![owner]),
        finalizers: Some(vec![LEDGER_FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    Some(Remediation { metadata, spec, status: None })
}
