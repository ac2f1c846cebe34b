import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import secagg


@pytest.fixture(scope="session")
def protobuf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Message classes of the protobuf runtime, by name, made from the published secagg.proto."""
    folder = Path(secagg.__file__).parent
    target = tmp_path_factory.mktemp("protobuf") / "secagg.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}"]
    subprocess.run([*command, f"--descriptor_set_out={target}", "secagg.proto"], check=True)
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    for file in files.file:
        pool.Add(file)
    found = message_factory.GetMessageClassesForFiles(["secagg.proto"], pool)
    return {message.DESCRIPTOR.name: message for message in found.values()}
