"""`meshwright adapter gen`: the files that it writes are the contract's, compile, and name what is missing."""

from __future__ import annotations

from pathlib import Path

import descriptor_sets
import pytest
import yaml

from meshwright.mixer.remote.descriptors import DescriptorError
from meshwright.mixer.remote.generate.project import Wanted, generate, read
from meshwright.mixer.remote.generate.service import service_files
from meshwright.mixer.remote.generate.text import proto_text
from meshwright.mixer.remote.handlers import adapter_config, read_template
from meshwright.mixer.remote.templates import ATTRIBUTE_GENERATOR, CHECK, CHECK_WITH_OUTPUT, QUOTA, REPORT, shipped

ORIGINAL = """
syntax = "proto3";
package shop.basket;
import "gogoproto/gogo.proto";
import "mixer/adapter/model/v1beta1/extensions.proto";
import "policy/v1beta1/type.proto";
option (istio.mixer.adapter.model.v1beta1.template_variety) = TEMPLATE_VARIETY_QUOTA;
option (istio.mixer.adapter.model.v1beta1.template_name) = "basket";
option (gogoproto.goproto_getters_all) = false;
message Template { map<string, istio.policy.v1beta1.Value> dimensions = 1; Who who = 2 [(gogoproto.nullable) = false]; }
message Who { string user = 1; istio.policy.v1beta1.DNSName host = 2; }
"""


def wanted(template: Path, config: Path | None = None, **given: bool) -> Wanted:
    session_based = given.get("session_based", False)
    return Wanted(template, config, "keyvaladapter", "shop", 'says "no"', session_based, [])


def from_set(folder: Path, variety: int, *, config: bool = False) -> Wanted:
    (folder / "keyval.binpb").write_bytes(descriptor_sets.blob(descriptor_sets.template_source(variety=variety)))
    (folder / "config.binpb").write_bytes(descriptor_sets.blob(descriptor_sets.config_source()))
    return wanted(folder / "keyval.binpb", folder / "config.binpb" if config else None)


@pytest.mark.parametrize("variety", [CHECK, REPORT, QUOTA, ATTRIBUTE_GENERATOR, CHECK_WITH_OUTPUT])
def test_documents_can_be_read_back(tmp_path: Path, variety: int) -> None:
    files = generate(from_set(tmp_path, variety, config=True))
    document = yaml.safe_load(files["template.yaml"])
    template = read_template(document["spec"]["descriptor"])
    assert (template.name, template.variety, template.method) == (
        "keyval",
        variety,
        "/keyval.HandleKeyvalService/HandleKeyval",
    )
    assert bool(template.outputs) == (variety in (ATTRIBUTE_GENERATOR, CHECK_WITH_OUTPUT))
    adapter = yaml.safe_load(files["adapter.yaml"])
    assert adapter["spec"]["templates"] == ["keyval.shop"]
    assert adapter["spec"]["description"] == 'says "no"'
    assert adapter_config(adapter["spec"]["config"], {"limit": 1})
    for name in ("adapter.py", "server.py", "contract.py"):
        compile(files[name], name, "exec")


def test_a_template_of_the_original_compiles_unchanged(tmp_path: Path) -> None:
    (tmp_path / "basket.proto").write_text(ORIGINAL)
    files = generate(wanted(tmp_path / "basket.proto"))
    template = read_template(yaml.safe_load(files["template.yaml"])["spec"]["descriptor"])
    assert template.method == "/shop.basket.HandleBasketService/HandleBasket"
    assert {field.name: field.number for field in template.instance.fields} == {
        "dimensions": 1,
        "who": 2,
        "name": 72295727,
    }
    # What it writes compiles by itself, to the same messages.
    for name, content in files.items():
        target = tmp_path / "out" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    again = read(tmp_path / "out/proto/basket_handler_service.proto", [tmp_path / "out/proto"])
    assert proto_text(again[-1]) == proto_text(service_files(again)[-1])
    assert again[-1].service[0].name == "HandleBasketService"


def test_contract_and_generated_service_agree(tmp_path: Path) -> None:
    """A template with the fields of listentry makes the service that the contract has."""
    source = descriptor_sets.template_source("listentry", CHECK)
    del source[-1].message_type[:]
    template = source[-1].message_type.add(name="Template")
    template.field.append(descriptor_sets.message("value", 1, descriptor_sets.VALUE))
    source[-1].options.Extensions[
        next(each for each, _ in source[-1].options.ListFields() if each.name == "template_variety")
    ] = CHECK
    made = read_template(descriptor_sets.text(service_files(source)))
    known = shipped("listentry")
    assert known is not None
    for mine, theirs in ((made.instance, known.instance), (made.types, known.types)):
        assert {(f.name, f.number, f.type) for f in mine.fields} == {(f.name, f.number, f.type) for f in theirs.fields}
    assert made.request == known.request


def test_what_is_no_template_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.binpb").write_bytes(descriptor_sets.blob(descriptor_sets.config_source()))
    with pytest.raises(DescriptorError, match="template_variety"):
        generate(wanted(tmp_path / "x.binpb"))
    source = descriptor_sets.template_source()
    del source[-1].message_type[1]
    (tmp_path / "y.binpb").write_bytes(descriptor_sets.blob(source))
    with pytest.raises(DescriptorError, match="no message `Template`"):
        generate(wanted(tmp_path / "y.binpb"))
