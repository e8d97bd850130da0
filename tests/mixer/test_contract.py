"""The public contract for clients in other languages: proto files and a descriptor set, in the installed package."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from typer.testing import CliRunner

from meshwright.platform.cli import proto

SOURCES = Path(__file__).parents[2] / "proto"


def test_the_proto_files_are_shipped_as_they_are() -> None:
    own = {path.relative_to(SOURCES) for path in SOURCES.rglob("*.proto")}
    assert own
    assert {path.relative_to(proto.folder()) for path in proto.folder().rglob("*.proto")} == own
    assert all((proto.folder() / name).read_bytes() == (SOURCES / name).read_bytes() for name in own)


def test_the_descriptor_set_is_whole() -> None:
    """Files in it come after their imports, so that whoever reads it needs nothing else."""
    described = descriptor_pb2.FileDescriptorSet.FromString((proto.folder() / proto.DESCRIPTORS).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.AddSerializedFile(file.SerializeToString())
    mixer = pool.FindServiceByName("istio.mixer.v1.Mixer")
    assert [method.name for method in mixer.methods] == ["Check", "Report"]
    assert pool.FindMessageTypeByName("istio.mixer.v1.CheckResponse").fields_by_name["quotas"].number == 3


def test_they_can_be_copied(tmp_path: Path) -> None:
    result = CliRunner().invoke(proto.app, ["--export", str(tmp_path / "contract")])
    assert result.exit_code == 0
    assert (tmp_path / "contract" / "istio/mixer/v1/mixer.proto").exists()
    assert (tmp_path / "contract" / proto.DESCRIPTORS).exists()
    assert not (tmp_path / "contract" / "__init__.py").exists()
    assert Path(CliRunner().invoke(proto.app, []).stdout.strip()) == proto.folder()
    (tmp_path / "file").write_text("")
    assert CliRunner().invoke(proto.app, ["--export", str(tmp_path / "file")]).exit_code == 64
