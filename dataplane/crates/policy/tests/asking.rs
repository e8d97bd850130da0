//! Adapters outside of the engine: what they are asked, and what becomes of their answers.

mod common;

use std::collections::HashMap;

use common::{Attributes, Builder, Operation, Type, Variety, limit, names};
use meshwright_api::google::rpc::Status;
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::{
    Answer, CheckRequest, Decision, Demand, Failed, Grant, Plan, Program, Question, Reply, Settled, Variety as Kind,
};
use mixer::attributes::AttributeValue;
use mixer::attributes::attribute_value::Value;
use prost::Message;

const SECOND: i64 = 1_000_000_000;

/// Everything a driver does but for charging.
fn plan(
    builder: &Builder,
    attributes: Attributes,
    ask: &mut dyn FnMut(&Question) -> Answer,
) -> (Decision, Vec<String>) {
    let program = Program::load(&builder.bytes()).unwrap();
    let bytes = attributes.request().encode_to_vec();
    let request = CheckRequest::read(&bytes).unwrap();
    let bag = request.bag(&program).unwrap();
    let mut ask = |questions: Vec<Question>| -> Vec<Answer> { questions.iter().map(&mut *ask).collect() };
    let generated = program.generate(&bag, 0).unwrap().map(|mut generating| {
        let answers = ask(generating.questions());
        generating.finish(&program, &bag, answers).unwrap()
    });
    let bag = match &generated {
        Some(generated) => bag.with(generated),
        None => bag,
    };
    let mut deciding = program.check(&bag, 0).unwrap();
    let answers = ask(deciding.questions());
    let decision = deciding.finish(&program, &bag, answers).unwrap();
    let plan = Plan::make(&program, &request, &bag, decision.clone(), 0).unwrap();
    let answer = plan.answer(&program, &request, &[]).precondition.unwrap();
    (decision, names(&answer.referenced_attributes.unwrap()))
}

fn decide(builder: &Builder, attributes: Attributes, mut ask: impl FnMut(&Question) -> Answer) -> Decision {
    plan(builder, attributes, &mut ask).0
}

fn reply(code: i32, message: &str) -> Answer {
    Ok(Reply {
        status: Status {
            code,
            message: message.into(),
            details: Vec::new(),
        },
        valid_nanos: 2 * SECOND,
        uses: 7,
        ..Default::default()
    })
}

fn text(text: &str) -> AttributeValue {
    AttributeValue {
        value: Some(Value::StringValue(text.into())),
    }
}

fn outputs(values: &[(&str, AttributeValue)]) -> Answer {
    Ok(Reply {
        outputs: values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
        valid_nanos: 60 * SECOND,
        uses: -1,
        ..Default::default()
    })
}

#[test]
fn a_question_has_the_evaluated_instance_and_its_handler() {
    let mut builder = Builder::new();
    let handler = builder.asked("guard", false);
    let (path, ip) = (
        builder.read("request.path", Type::String),
        builder.read("source.ip", Type::IpAddress),
    );
    let instance = builder.instance(
        "who",
        "authorization",
        Variety::Check,
        &[("action.path", path), ("ip", ip)],
    );
    builder.rule(None, handler, instance);
    let mut attributes = Attributes::default().text("request.path", "/a");
    let index = attributes.index("source.ip");
    attributes.0.bytes.insert(index, vec![10, 0, 0, 1].into());
    let mut asked = Vec::new();
    let decision = decide(&builder, attributes, |question| {
        asked.push(question.clone());
        reply(0, "")
    });
    assert_eq!((decision.code, decision.valid_nanos, decision.uses), (0, 2 * SECOND, 7));
    let message = asked.remove(0).message(3);
    assert!(asked.is_empty());
    assert_eq!(
        (message.id, message.handler.as_str(), message.adapter.as_str()),
        (3, "guard.mesh", "elsewhere")
    );
    assert_eq!(
        (message.instance.as_str(), message.template.as_str()),
        ("who.mesh", "authorization")
    );
    assert_eq!((message.variety(), message.timeout_nanos), (Kind::Check, SECOND));
    let address = Value::BytesValue(vec![10, 0, 0, 1].into());
    let fields = HashMap::from([
        ("action.path".to_owned(), text("/a")),
        ("ip".to_owned(), AttributeValue { value: Some(address) }),
    ]);
    assert_eq!(message.fields, fields);
}

#[test]
fn denials_are_joined_in_the_order_of_rules_wherever_they_were_decided() {
    let mut builder = Builder::new();
    let (first, built_in, last) = (
        builder.asked("first", false),
        builder.denier("second", 16, "built in"),
        builder.asked("third", false),
    );
    let nothing = builder.nothing();
    for handler in [first, built_in, last] {
        builder.rule(None, handler, nothing);
    }
    let decision = decide(&builder, Attributes::default(), |question| {
        reply(
            if question.asked.handler.starts_with("first") {
                7
            } else {
                5
            },
            "asked",
        )
    });
    assert_eq!(
        decision.message,
        "first.mesh:asked, second.mesh:built in, third.mesh:asked"
    );
    assert_eq!((decision.code, decision.rule.as_deref()), (7, Some("rule0.mesh")));
    assert_eq!((decision.valid_nanos, decision.uses), (2 * SECOND, 7));
    let decision = decide(&builder, Attributes::default(), |_| reply(0, ""));
    assert_eq!((decision.code, decision.rule.as_deref()), (16, Some("rule1.mesh")));
}

#[test]
fn an_adapter_that_fails_follows_its_policy_and_the_answer_is_not_kept() {
    for (is_open, failure, code) in [
        (true, Failed::TimedOut, 0),
        (false, Failed::TimedOut, 4),
        (true, Failed::Because("it broke".into()), 0),
        (false, Failed::Because("it broke".into()), 2),
    ] {
        let mut builder = Builder::new();
        let (handler, nothing) = (builder.asked("guard", is_open), builder.nothing());
        builder.rule(None, handler, nothing);
        let decision = decide(&builder, Attributes::default(), |_| Err(failure.clone()));
        assert_eq!(
            (decision.code, decision.valid_nanos, decision.uses),
            (code, 0, 0),
            "{failure}"
        );
        assert_eq!(decision.message.contains(&failure.to_string()), code != 0);
    }
}

#[test]
fn codes_that_callers_take_for_something_else_are_no_denials() {
    let mut builder = Builder::new();
    let (handler, nothing) = (builder.asked("guard", false), builder.nothing());
    builder.rule(None, handler, nothing);
    for (given, code) in [(13, 2), (14, 2), (7, 7)] {
        assert_eq!(
            decide(&builder, Attributes::default(), |_| reply(given, "no")).code,
            code
        );
    }
}

#[test]
fn an_instance_that_can_not_be_evaluated_denies_unasked() {
    let mut builder = Builder::new();
    let (handler, path) = (builder.asked("guard", true), builder.read("request.path", Type::String));
    let instance = builder.instance("who", "authorization", Variety::Check, &[("action.path", path)]);
    builder.rule(None, handler, instance);
    let decision = decide(&builder, Attributes::default(), |_| panic!("it should not be asked"));
    assert_eq!(decision.code, 9);
    assert!(
        decision.message.contains("action.path: attribute request.path"),
        "{}",
        decision.message
    );
}

#[test]
fn the_first_denial_of_all_says_what_the_caller_gets() {
    let mut builder = Builder::new();
    let (handler, nothing) = (builder.asked("guard", false), builder.nothing());
    let also = builder.denier("also", 7, "");
    let Some(compiled::handler::Adapter::Denier(denier)) = &mut builder.0.handlers[also as usize].adapter else {
        panic!("a denier")
    };
    denier.direct_response = Some(compiled::handler::DirectResponse {
        code: 0,
        body: "built in".into(),
        headers: [("X-Why".to_owned(), "rule".to_owned())].into(),
    });
    builder.rule(None, handler, nothing);
    builder.rule(None, also, nothing);
    // istio.policy.v1beta1.DirectHttpResponse{code: 302, body: "go", headers: {"Location": "/login", "Set-Cookie": "a=1,b=2"}}
    let mut detail = vec![0x08, 0xae, 0x02, 0x12, 2];
    detail.extend(b"go");
    for (name, value) in [("Location", "/login"), ("Set-Cookie", "a=1,b=2")] {
        detail.extend([0x1a, (name.len() + value.len() + 4) as u8, 0x0a, name.len() as u8]);
        detail.extend(name.bytes());
        detail.extend([0x12, value.len() as u8]);
        detail.extend(value.bytes());
    }
    let mut denial = reply(7, "no").unwrap();
    denial.status.details.push(prost_types::Any {
        type_url: "type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse".into(),
        value: detail,
    });
    let direct = decide(&builder, Attributes::default(), |_| Ok(denial.clone()))
        .direct
        .unwrap();
    assert_eq!((direct.code, direct.body.as_str()), (302, "go"));
    let headers: Vec<_> = direct
        .headers
        .iter()
        .map(|each| (each.name.as_str(), each.value.as_str(), each.operation))
        .collect();
    assert_eq!(
        headers,
        [
            ("Location", "/login", 0),
            ("Set-Cookie", "a=1", 2),
            ("Set-Cookie", "b=2", 2)
        ]
    );
    // The asked one passes: the built-in denial is the first.
    let direct = decide(&builder, Attributes::default(), |_| reply(0, ""))
        .direct
        .unwrap();
    assert_eq!(
        (direct.code, direct.body.as_str(), direct.headers[0].value.as_str()),
        (403, "built in", "rule")
    );
    // The first has nothing to say, and the second isn't asked to.
    assert!(
        decide(&builder, Attributes::default(), |_| reply(7, "no"))
            .direct
            .is_none()
    );
}

#[test]
fn header_operations_read_what_their_actions_put_out() {
    let mut builder = Builder::new();
    let handler = builder.asked("keys", true);
    let instance = builder.instance("key", "keyval", Variety::CheckWithOutput, &[]);
    let ((value, node), (number, other)) = (
        builder.output("value", Type::String),
        builder.output("count", Type::String),
    );
    let nobody = builder.text("nobody");
    let otherwise = builder.node(Operation::Default, &[other, nobody]);
    let rule = builder.rule(None, handler, instance);
    rule.actions[0].name = "lookup".into();
    rule.actions[0].outputs = vec![value, number];
    rule.request_headers = [("x-value", node), ("x-count", otherwise)]
        .map(|(name, node)| compiled::HeaderOperation {
            name: name.into(),
            values: vec![node],
            ..Default::default()
        })
        .into();
    let told = |answer: Answer| {
        let decision = decide(&builder, Attributes::default(), |_| answer.clone());
        let headers = decision.request_headers.into_iter();
        headers
            .map(|each| format!("{}={}", each.name, each.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(outputs(&[("value", text("a")), ("count", text("b"))])),
        ["x-value=a", "x-count=b"]
    );
    // Of another type than the template says: as if it weren't there.
    let seven = AttributeValue {
        value: Some(Value::Int64Value(7)),
    };
    assert_eq!(told(outputs(&[("count", seven)])), ["x-count=nobody"]);
    assert_eq!(told(Err(Failed::TimedOut)), ["x-count=nobody"]);
}

/// A generator makes `source.user` of `source.uid` and `request.headers` of nothing; rules deny by both.
fn with_generator(is_open: bool) -> Builder {
    let mut builder = Builder::new();
    let handler = builder.asked("pods", is_open);
    let uid = builder.read("source.uid", Type::String);
    let ip = builder.read("source.ip", Type::IpAddress);
    let instance = builder.instance(
        "pod",
        "kubernetes",
        Variety::AttributeGenerator,
        &[("uid", uid), ("ip", ip)],
    );
    let ((user, node), (labels, map)) = (
        builder.output("user", Type::String),
        builder.output("labels", Type::StringMap),
    );
    let (attribute, headers) = (
        builder.attribute("source.user", Type::String),
        builder.attribute("request.headers", Type::StringMap),
    );
    builder.0.instances[instance as usize].outputs = vec![user, labels];
    builder.0.instances[instance as usize].bindings = vec![
        compiled::Binding { attribute, value: node },
        compiled::Binding {
            attribute: headers,
            value: map,
        },
    ];
    builder.rule(None, handler, instance);
    let (denier, nothing) = (builder.denier("no", 7, ""), builder.nothing());
    let is_mallory = builder.equals("source.user", "mallory");
    builder.rule(Some(is_mallory), denier, nothing);
    let (tier, gold) = (builder.index("request.headers", "tier"), builder.text("gold"));
    let is_gold = builder.node(Operation::Equal, &[tier, gold]);
    builder.rule(Some(is_gold), denier, nothing);
    builder
}

#[test]
fn generated_attributes_count_in_place_of_the_requests_and_are_not_referred_to() {
    let builder = with_generator(true);
    let attributes = || {
        Attributes::default()
            .text("source.uid", "pod-1")
            .text("source.user", "ann")
    };
    let labels = |tier: &str| AttributeValue {
        value: Some(Value::StringMapValue(mixer::attributes::StringMap {
            entries: [("tier".to_owned(), tier.to_owned())].into(),
        })),
    };
    let namespaces = ["-context.reporter.kind", "-destination.namespace"];
    let answered = |user: &str, tier: &str| {
        plan(&builder, attributes(), &mut |question| {
            let names: Vec<_> = question.fields.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, ["uid"], "what is missing is left out");
            outputs(&[("user", text(user)), ("labels", labels(tier))])
        })
    };
    for (user, tier, code) in [("mallory", "none", 7), ("bob", "gold", 7), ("bob", "none", 0)] {
        let (decision, references) = answered(user, tier);
        assert_eq!(decision.code, code, "{user} {tier}");
        let expected = [&namespaces[..], &["-source.ip", "source.uid"]].concat();
        assert_eq!(references, expected);
        assert_eq!(decision.uses, if code == 0 { 10_000 } else { 1000 });
    }
    // What wasn't made is the request's own, and then it is referred to.
    let (decision, references) = plan(&builder, attributes(), &mut |_| outputs(&[]));
    assert_eq!((decision.code, decision.uses), (0, 0));
    assert!(references.contains(&"source.user".to_owned()) && references.contains(&"-request.headers".to_owned()));
}

#[test]
fn a_closed_generator_that_fails_lets_nothing_pass() {
    for (is_open, code) in [(true, 0), (false, 2)] {
        let builder = with_generator(is_open);
        let attributes = Attributes::default().text("source.uid", "pod-1");
        let decision = decide(&builder, attributes, |_| Err(Failed::Because("gone".into())));
        assert_eq!((decision.code, decision.uses), (code, 0));
        assert_eq!(decision.rule.as_deref(), (code != 0).then_some("rule0.mesh"));
    }
}

fn settled(
    builder: &Builder,
    amount: i64,
    best_effort: bool,
    grants: &[i64],
    answers: &[Answer],
) -> (Settled, Vec<Question>) {
    let program = Program::load(&builder.bytes()).unwrap();
    let bag = meshwright_policy::Bag::new(program.names());
    let demand = Demand {
        quota: Some("count"),
        amount,
        best_effort,
        deduplication_id: Some("id"),
    };
    let mut charges = program.charges(&bag, demand, 0).unwrap();
    assert_eq!(charges.charges.len(), grants.len());
    let grants: Vec<_> = grants
        .iter()
        .map(|granted| Grant {
            granted: *granted,
            valid: 60 * SECOND as u64,
            ..Default::default()
        })
        .collect();
    let questions = charges.questions();
    (charges.settle(&grants, answers), questions)
}

#[test]
fn a_quota_kept_elsewhere_is_asked_and_the_least_of_all_grants_counts() {
    let mut builder = Builder::new();
    let quota = builder.quota("count", &[]);
    let asked = builder.asked("redis", false);
    builder.rule(None, asked, quota);
    let granted = |granted: i64| {
        Ok(Reply {
            granted,
            valid_nanos: SECOND,
            ..Default::default()
        })
    };
    let (alone, questions) = settled(&builder, 5, true, &[], &[granted(3)]);
    assert_eq!((alone.grant.granted, alone.grant.valid), (3, SECOND as u64));
    let wanted = questions[0].wanted.as_ref().unwrap();
    assert_eq!(
        (wanted.amount, wanted.best_effort, wanted.deduplication_id.as_deref()),
        (5, true, Some("id"))
    );
    assert_eq!(
        settled(&builder, 5, true, &[], &[granted(99)]).0.grant.granted,
        5,
        "no more than was asked"
    );
    assert_eq!(settled(&builder, 5, true, &[], &[granted(-9)]).0.grant.granted, 0);
    assert_eq!(
        settled(&builder, 5, true, &[], &[Err(Failed::TimedOut)])
            .0
            .grant
            .granted,
        0,
        "closed"
    );
    let own = builder.quotas(vec![common::limit(quota, 10)]);
    builder.rule(None, own, quota);
    let (both, _) = settled(&builder, 5, true, &[5], &[granted(3)]);
    assert_eq!(
        (both.grant.granted, both.releases[0].amount, both.returns.len()),
        (3, -2, 0)
    );
    let (both, _) = settled(&builder, 5, true, &[2], &[granted(3)]);
    assert_eq!((both.grant.granted, both.releases.len()), (2, 0));
    assert_eq!(both.returns[0].wanted.as_ref().unwrap().amount, -1);
}

#[test]
fn an_open_quota_that_fails_grants_what_was_asked() {
    let mut builder = Builder::new();
    let (quota, asked) = (builder.quota("count", &[]), builder.asked("redis", true));
    builder.rule(None, asked, quota);
    let (settled, _) = settled(&builder, 5, false, &[], &[Err(Failed::TimedOut)]);
    assert_eq!((settled.grant.granted, settled.grant.valid), (5, 0));
}

#[test]
fn quotas_of_which_a_request_costs_several_are_settled_in_requests() {
    let mut builder = Builder::new();
    let (one, many) = (builder.quota("one", &[]), builder.quota("many", &[]));
    let five = builder.constant(compiled::constant::Value::Int64Value(5));
    builder.0.instances[many as usize].charge = Some(five);
    let quotas = builder.quotas(vec![limit(one, 10), limit(many, 12)]);
    builder.rule(None, quotas, one);
    builder.rule(None, quotas, many);
    let asked = builder.asked("redis", true);
    builder.rule(None, asked, many);
    let program = Program::load(&builder.bytes()).unwrap();
    let bag = meshwright_policy::Bag::new(program.names());
    let charge = |quota, amount| {
        let demand = Demand {
            quota,
            amount,
            best_effort: true,
            deduplication_id: None,
        };
        program.charges(&bag, demand, 0).unwrap()
    };
    let grant = |granted| Grant {
        granted,
        valid: 9,
        ..Default::default()
    };
    let amounts = |charges: &meshwright_policy::Charges| -> Vec<i64> {
        charges.charges.iter().map(|charge| charge.amount).collect()
    };
    let mut three = charge(None, 3);
    assert_eq!(amounts(&three), [3, 15]);
    assert_eq!(three.questions()[0].wanted.as_ref().unwrap().amount, 15);
    let settled = three.settle(&[grant(3), grant(12)], &[Err(Failed::TimedOut)]);
    assert_eq!(settled.grant.granted, 2, "two requests at five each");
    let releases: Vec<i64> = settled.releases.iter().map(|release| release.amount).collect();
    assert_eq!(releases, [-1, -2]);
    assert_eq!(settled.returns[0].wanted.as_ref().unwrap().amount, -5);
    let mut single = charge(None, 1);
    single.questions();
    let settled = single.settle(&[grant(1), grant(0)], &[Err(Failed::TimedOut)]);
    assert_eq!((settled.grant.granted, settled.releases[0].amount), (0, -1));
    assert_eq!(
        amounts(&charge(Some("many"), 3)),
        [3],
        "who names a quota says how much"
    );
}

#[test]
fn a_quota_of_which_a_request_costs_nothing_is_not_charged() {
    for nothing in [0, -3] {
        let mut builder = Builder::new();
        let quota = builder.quota("count", &[]);
        let nothing = builder.constant(compiled::constant::Value::Int64Value(nothing));
        builder.0.instances[quota as usize].charge = Some(nothing);
        let quotas = builder.quotas(vec![limit(quota, 1)]);
        builder.rule(None, quotas, quota);
        let program = Program::load(&builder.bytes()).unwrap();
        let demand = Demand {
            quota: None,
            amount: 7,
            best_effort: false,
            deduplication_id: None,
        };
        let bag = meshwright_policy::Bag::new(program.names());
        assert!(program.charges(&bag, demand, 0).unwrap().are_unlimited());
    }
}
