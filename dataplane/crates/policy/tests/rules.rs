//! What rules have beside a condition: sampling, dry run, a cap on validity, and explanations of what they did.

mod common;

use common::{Attributes, Builder, Operation, Type, limit};
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::{Bag, Decision, Demand, Engine, Program, Verdict};
use mixer::check_request::QuotaParams;
use prost::Message;

const SECOND: u64 = 1_000_000_000;

fn decide(program: &Program, attributes: Attributes, now: u64) -> Decision {
    let attributes = attributes.0.encode_to_vec();
    let bag = Bag::compressed(program.names(), &attributes).unwrap();
    decide_bag(program, &bag, now)
}

fn decide_bag(program: &Program, bag: &Bag<'_>, now: u64) -> Decision {
    let deciding = program.check(bag, now).unwrap();
    deciding.finish(program, bag, Vec::new()).unwrap()
}

fn denier(sampling: impl FnOnce(&mut Builder) -> compiled::Sampling) -> Program {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
    let sampling = sampling(&mut builder);
    builder.rule(None, denier, nothing).sampling = Some(sampling);
    Program::load(&builder.bytes()).unwrap()
}

fn random(numerator: u64, rate: Option<u32>, key: Option<u32>) -> compiled::Sampling {
    compiled::Sampling {
        random: Some(compiled::sampling::Random {
            numerator,
            denominator: 100,
            rate,
            key,
        }),
        rate_limit: None,
    }
}

#[test]
fn random_sampling_picks_its_share_and_answers_are_not_kept() {
    let program = denier(|_| random(25, None, None));
    let decisions: Vec<_> = (0..4000).map(|_| decide(&program, Attributes::default(), 0)).collect();
    let denied = decisions.iter().filter(|decision| decision.code == 7).count();
    // Ten standard deviations of a fair coin of a quarter.
    assert!((726..1274).contains(&denied), "{denied} of 4000");
    assert!(decisions.iter().all(|decision| decision.uses == 0));
}

#[test]
fn the_same_key_is_picked_alike_as_envoy_picks() {
    let program = denier(|builder| {
        let key = builder.read("request.id", Type::String);
        random(50, None, Some(key))
    });
    let code = |id: &str| decide(&program, Attributes::default().text("request.id", id), 0);
    // 0x31 = 49 and 0x32 = 50 of a hundred.
    assert_eq!(code("00000031-8a4d-4b6e-9f7a-1c2d3e4f5a6b").code, 7);
    assert_eq!(code("00000032-8a4d-4b6e-9f7a-1c2d3e4f5a6b").code, 0);
    assert_eq!(
        code("00000031-8a4d-4b6e-9f7a-1c2d3e4f5a6b").uses,
        1000,
        "referred to by its id"
    );
    let first: Vec<_> = (0..100).map(|number| code(&format!("call {number}")).code).collect();
    let again: Vec<_> = (0..100).map(|number| code(&format!("call {number}")).code).collect();
    assert_eq!(first, again);
    assert!(first.contains(&0) && first.contains(&7));
}

#[test]
fn an_expression_replaces_the_rate() {
    let program = denier(|builder| {
        let rate = builder.read("request.size", Type::Int64);
        random(100, Some(rate), None)
    });
    for (rate, code) in [(Some(100), 7), (Some(0), 0), (Some(-5), 0), (None, 0)] {
        let mut attributes = Attributes::default();
        if let Some(rate) = rate {
            let index = attributes.index("request.size");
            attributes.0.int64s.insert(index, rate);
        }
        assert_eq!(decide(&program, attributes, 0).code, code, "{rate:?}");
    }
}

#[test]
fn rate_limit_sampling_takes_the_first_and_then_some() {
    let program = denier(|_| compiled::Sampling {
        random: None,
        rate_limit: Some(compiled::sampling::RateLimit {
            window_nanos: SECOND as i64,
            max_unsampled: 2,
            rate: 3,
        }),
    });
    let codes = |now: u64| -> Vec<i32> {
        (0..8)
            .map(|_| decide(&program, Attributes::default(), now).code)
            .collect()
    };
    assert_eq!(codes(0), [7, 7, 0, 0, 7, 0, 0, 7]);
    assert_eq!(codes(SECOND), [7, 7, 0, 0, 7, 0, 0, 7]);
}

#[test]
fn a_rule_in_dry_run_is_told_and_changes_nothing() {
    let mut builder = Builder::new();
    let (denier, nothing) = (builder.denier("no", 7, "go away"), builder.nothing());
    let host = builder.read("request.host", Type::String);
    let rule = builder.rule(None, denier, nothing);
    rule.dry_run = true;
    rule.request_headers = vec![compiled::HeaderOperation {
        name: "x-host".into(),
        values: vec![host],
        ..Default::default()
    }];
    let quota = builder.quota("count", &[]);
    let quotas = builder.quotas(vec![limit(quota, 1)]);
    builder.rule(None, quotas, quota).dry_run = true;
    let program = Program::load(&builder.bytes()).unwrap();
    let decision = decide(&program, Attributes::default().text("request.host", "shop"), 0);
    assert_eq!(
        (decision.code, decision.uses, decision.valid_nanos),
        (0, 10_000, 60 * SECOND as i64)
    );
    assert!(decision.request_headers.is_empty() && decision.message.is_empty());
    let [trial] = decision.trials.as_slice() else {
        panic!("one trial, not {:?}", decision.trials)
    };
    assert_eq!(
        (trial.rule.as_str(), trial.code, trial.message.as_str()),
        ("rule0.mesh", 7, "no.mesh:go away")
    );
    let demand = Demand {
        quota: Some("count"),
        amount: 5,
        best_effort: false,
        deduplication_id: None,
    };
    let charges = program.charges(&Bag::new(program.names()), demand, 0).unwrap();
    assert!(charges.are_unlimited());
    assert_eq!(
        (charges.trials[0].rule.as_str(), charges.trials[0].charge.amount),
        ("rule1.mesh", 5)
    );
    assert_eq!(charges.settle(&[], &[]).grant.granted, 5);
}

#[test]
fn no_answer_is_valid_for_longer_than_the_policy_says() {
    let mut builder = Builder::new();
    builder.0.max_validity_nanos = SECOND as i64;
    let engine = Engine::default();
    engine.load(&builder.bytes()).unwrap();
    let mut request = Attributes::default().request();
    let asked = QuotaParams {
        amount: 3,
        best_effort: false,
    };
    request.quotas.insert("unlimited".into(), asked);
    let answer = engine.check(&request.encode_to_vec(), 0).unwrap();
    let answer = mixer::CheckResponse::decode(answer.as_slice()).unwrap();
    let precondition = answer.precondition.unwrap();
    assert_eq!(precondition.valid_duration.unwrap().seconds, 1);
    assert_eq!(precondition.valid_use_count, 10_000);
    let quota = &answer.quotas["unlimited"];
    assert_eq!((quota.granted_amount, quota.valid_duration.unwrap().seconds), (3, 1));
}

#[test]
fn a_grant_made_without_the_map_is_never_kept() {
    let mut builder = Builder::new();
    let quota = builder.quota("count", &[]);
    let quotas = builder.quotas(vec![limit(quota, 10)]);
    let (tier, gold) = (builder.index("request.headers", "tier"), builder.text("gold"));
    let condition = builder.node(Operation::Equal, &[tier, gold]);
    builder.rule(Some(condition), quotas, quota);
    let engine = Engine::default();
    engine.load(&builder.bytes()).unwrap();
    let valid = |attributes: Attributes| {
        let mut request = attributes.request();
        let asked = QuotaParams {
            amount: 1,
            best_effort: false,
        };
        request.quotas.insert("count".into(), asked);
        let answer = engine.check(&request.encode_to_vec(), 0).unwrap();
        let answer = mixer::CheckResponse::decode(answer.as_slice()).unwrap();
        (
            answer.quotas["count"].granted_amount,
            answer.quotas["count"].valid_duration.unwrap().seconds,
        )
    };
    assert_eq!(valid(Attributes::default()), (1, 0));
    assert_eq!(
        valid(Attributes::default().map("request.headers", &[("tier", "tin")])),
        (1, 60)
    );
}

#[test]
fn an_explanation_has_each_rule_with_what_it_read_and_the_action_that_decided() {
    let mut builder = Builder::new();
    let (first, second, nothing) = (
        builder.denier("no", 7, "go"),
        builder.denier("never", 16, ""),
        builder.nothing(),
    );
    let method = builder.read("request.method", Type::String);
    let key = builder.key(method, &["PUT"], &[]);
    builder.rule(None, first, nothing).keys = vec![key];
    let (path, tier) = (
        builder.equals("request.path", "/b"),
        builder.index("request.headers", "tier"),
    );
    let gold = builder.text("gold");
    let is_gold = builder.node(Operation::Equal, &[tier, gold]);
    let both = builder.node(Operation::And, &[is_gold, path]);
    builder.rule(Some(both), first, nothing);
    let user = builder.equals("source.user", "ann");
    builder.rule(Some(user), first, nothing);
    builder.rule(None, second, nothing);
    builder.rule(None, first, nothing);
    let program = Program::load(&builder.bytes()).unwrap();
    let attributes = Attributes::default()
        .text("request.method", "GET")
        .text("request.path", "/a")
        .map("request.headers", &[("tier", "gold")]);
    let bytes = attributes.0.encode_to_vec();
    let bag = Bag::compressed(program.names(), &bytes).unwrap();
    let plain = decide_bag(&program, &bag, 0);
    assert_eq!(plain.explanation, None);
    let bag = bag.explained();
    let decision = decide_bag(&program, &bag, 0);
    assert_eq!((decision.code, &decision.message), (plain.code, &plain.message));
    let explanation = decision.explanation.unwrap();
    let namespace: Vec<_> = explanation
        .namespace
        .iter()
        .map(|read| read.attribute.as_str())
        .collect();
    assert_eq!(namespace, ["context.reporter.kind", "destination.namespace"]);
    let told: Vec<_> = explanation
        .rules
        .iter()
        .map(|tried| {
            let reads = tried.reads.iter().map(|read| {
                let key = read.key.as_ref().map_or(String::new(), |key| format!("[{key}]"));
                format!("{}{key}={}", read.attribute, read.value.as_deref().unwrap_or("-"))
            });
            (
                tried.rule.as_str(),
                tried.verdict.clone(),
                reads.collect::<Vec<_>>().join(" "),
            )
        })
        .collect();
    let expected = [
        (
            "rule0.mesh",
            Verdict::False("request.method == \"PUT\"".into()),
            "request.method=GET",
        ),
        (
            "rule1.mesh",
            Verdict::False("request.path == \"/b\"".into()),
            "request.headers[tier]=gold request.path=/a",
        ),
        (
            "rule2.mesh",
            Verdict::Unknown("attribute source.user or the key asked of it is absent".into()),
            "source.user=-",
        ),
        ("rule3.mesh", Verdict::Matched, ""),
        ("rule4.mesh", Verdict::Matched, ""),
    ];
    let expected = expected.map(|(rule, verdict, reads)| (rule, verdict, reads.to_owned()));
    assert_eq!(told, expected);
    let decided: Vec<_> = explanation
        .rules
        .iter()
        .flat_map(|tried| &tried.actions)
        .map(|acted| (acted.handler.as_str(), acted.code, acted.decides))
        .collect();
    assert_eq!(decided, [("never.mesh", 16, true), ("no.mesh", 7, false)]);
}

#[test]
fn each_rule_says_what_it_read_although_another_read_it_before() {
    let mut builder = Builder::new();
    let (deny, nothing) = (builder.denier("deny", 7, "no"), builder.nothing());
    for tier in ["gold", "silver"] {
        let (found, wanted) = (builder.index("request.headers", "tier"), builder.text(tier));
        let (is_tier, is_path) = (
            builder.node(Operation::Equal, &[found, wanted]),
            builder.equals("request.path", "/b"),
        );
        let either = builder.node(Operation::Or, &[is_tier, is_path]);
        builder.rule(Some(either), deny, nothing);
    }
    let program = Program::load(&builder.bytes()).unwrap();
    let attributes = Attributes::default()
        .text("request.path", "/a")
        .map("request.headers", &[("tier", "bronze")]);
    let bytes = attributes.0.encode_to_vec();
    let bag = Bag::compressed(program.names(), &bytes).unwrap().explained();
    let explanation = decide_bag(&program, &bag, 0).explanation.unwrap();
    for tried in &explanation.rules {
        let reads: Vec<_> = tried.reads.iter().map(|read| read.value.as_deref()).collect();
        assert_eq!(reads, [Some("bronze"), Some("/a")], "{}", tried.rule);
    }
    assert_eq!(explanation.rules.len(), 2);
}
