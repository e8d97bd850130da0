//! Decides about a request and tells why: every rule that was tried, every attribute that was read. Nobody outside of the
//! engine is asked. Quotas are charged only where that is wanted: tests of policies do it on an engine of their own.

use meshwright_api::meshwright::mixer::v1 as wire;
use meshwright_policy::{
    Acted, Answer, BadRequest, Charge, CheckRequest, Engine, Explanation, Failed, Question, Read, Tried, Verdict,
};
use prost::Message;
use wire::tried::Phase;

/// A serialised ExplainResponse about a serialised CheckRequest at `now`. Without quotas of its own the request is asked for one of each that
/// its rules limit, as Envoy's are.
pub fn explain(engine: &Engine, request: &[u8], now: u64, charges: bool) -> Result<Vec<u8>, BadRequest> {
    explained(engine, request, now, charges).map(|response| response.encode_to_vec())
}

fn explained(engine: &Engine, request: &[u8], now: u64, charges: bool) -> Result<wire::ExplainResponse, BadRequest> {
    let program = engine.program();
    let request = CheckRequest::read(request)?;
    let bag = request.bag(&program)?.explained();
    let mut response = wire::ExplainResponse {
        revision: program.revision().to_owned(),
        ..Default::default()
    };
    let generated = match program.generate(&bag, now)? {
        Some(mut generating) => {
            let answers = unasked(&generating.questions());
            Some(generating.finish(&program, &bag, answers)?)
        }
        None => None,
    };
    let bag = match &generated {
        Some(generated) => bag.with(generated),
        None => bag,
    };
    if let Some(explanation) = generated.as_ref().and_then(|generated| generated.explanation.clone()) {
        add(&mut response, explanation, Phase::Generate);
    }
    let mut deciding = program.check(&bag, now)?;
    let answers = unasked(&deciding.questions());
    let decision = deciding.finish(&program, &bag, answers)?;
    response.code = decision.code;
    response.message = decision.message;
    response.rule = decision.rule.unwrap_or_default();
    response.request_headers = decision.request_headers;
    response.response_headers = decision.response_headers;
    response.dry_runs = decision
        .trials
        .into_iter()
        .map(|trial| wire::DryRun {
            rule: trial.rule,
            code: trial.code,
            message: trial.message,
        })
        .collect();
    if let Some(direct) = &decision.direct {
        response.direct_code = direct.code;
        response.direct_body = direct.body.clone();
    }
    if let Some(explanation) = decision.explanation {
        add(&mut response, explanation, Phase::Check);
    }
    if response.code != 0 {
        return Ok(response);
    }
    for demand in request.demands() {
        let mut charged = program.charges(&bag, demand, now)?;
        let answers = unasked(&charged.questions());
        if let Some(reason) = &charged.refused {
            response.refused.clone_from(reason);
        }
        for trial in &charged.trials {
            let granted = charges.then(|| engine.cells.charge(&trial.charge, now).granted);
            response.charges.push(charge(&trial.charge, granted, true));
        }
        let grants: Vec<_> = match charges && charged.refused.is_none() {
            true => charged
                .charges
                .iter()
                .map(|charge| engine.cells.charge(charge, now))
                .collect(),
            false => Vec::new(),
        };
        let granted = if charges {
            let settled = charged.settle(&grants, &answers);
            for release in &settled.releases {
                engine.cells.charge(release, now);
            }
            Some(settled.grant.granted)
        } else {
            None
        };
        for each in &charged.charges {
            response.charges.push(charge(each, granted, false));
        }
        if let Some(explanation) = charged.explanation {
            add(&mut response, explanation, Phase::Quota);
        }
    }
    Ok(response)
}

fn charge(charge: &Charge, granted: Option<i64>, dry_run: bool) -> wire::Charge {
    wire::Charge {
        quota: charge.quota.clone(),
        amount: charge.amount,
        max_amount: charge.max,
        window_nanos: i64::try_from(charge.window).unwrap_or(i64::MAX),
        granted,
        dry_run,
    }
}

fn unasked(questions: &[Question]) -> Vec<Answer> {
    let reason = || Failed::Because("nobody is asked in an explanation".into());
    questions.iter().map(|_| Err(reason())).collect()
}

fn add(response: &mut wire::ExplainResponse, explanation: Explanation, phase: Phase) {
    if response.namespace.is_empty() {
        response.namespace = explanation.namespace.into_iter().map(read).collect();
    }
    response
        .rules
        .extend(explanation.rules.into_iter().map(|rule| tried(rule, phase)));
}

fn tried(tried: Tried, phase: Phase) -> wire::Tried {
    use wire::tried::Verdict as Told;
    let (verdict, reason) = match tried.verdict {
        Verdict::Matched => (Told::Matched, String::new()),
        Verdict::False(part) => (Told::False, part),
        Verdict::Unknown(reason) => (Told::Unknown, reason),
        Verdict::Unsampled => (Told::Unsampled, String::new()),
    };
    wire::Tried {
        rule: tried.rule,
        phase: phase.into(),
        dry_run: tried.dry_run,
        verdict: verdict.into(),
        reason,
        reads: tried.reads.into_iter().map(read).collect(),
        actions: tried.actions.into_iter().map(acted).collect(),
    }
}

fn read(read: Read) -> wire::Read {
    wire::Read {
        attribute: read.attribute,
        key: read.key,
        value: read.value,
        generated: read.is_generated,
    }
}

fn acted(acted: Acted) -> wire::Acted {
    wire::Acted {
        handler: acted.handler,
        instance: acted.instance,
        asked: acted.was_asked,
        code: acted.code,
        message: acted.message,
        decides: acted.decides,
    }
}
