"""`ModelstudioDeployManager` with the real SDK, against a recording cloud: see `cloud.py`."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from trio_agentapp.deploy import ModelstudioDeployManager, OSSConfig
from trio_agentapp.errors import ConfigurationError, DeployError

from .cloud import SECRET, Cloud, Fault

AGENT = "from trio_agentapp import AgentApp\napp = AgentApp(app_name='Friday')\n"
VALUE = "a-value-of-the-environment"


def content(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
def agent(tmp_path: Path) -> str:
    (tmp_path / "friday.py").write_text(AGENT)
    return str(tmp_path / "friday.py")


async def test_the_requests_of_a_deployment(
    cloud: Cloud, agent: str, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setenv("MODELSTUDIO_WORKSPACE_ID", "ws-1")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "the-key-of-the-model")
    caplog.set_level(logging.DEBUG)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    steps: list[str] = []
    manager = ModelstudioDeployManager(OSSConfig.from_env(), report=steps.append)
    done = await manager.deploy(entrypoint=agent, environment={"MODEL": VALUE}, agent_desc="helps")
    assert cloud.lines == ["POST /ws-1/datacenter", "PUT /lease/lease-1", "POST /openapi/ws-1/highCode/publish"]
    asked, put, published = cloud.requests
    form = parse_qs(asked.body.decode())
    name = form["FileName"][0]
    assert int(form["SizeInBytes"][0]) == len(put.body)
    assert published.json == {
        "agentName": "friday",
        "agentDesc": "helps",
        "sourceCodeName": name,
        "sourceCodeOssUrl": "lease-1",
        "telemetryEnabled": True,
    }
    wheel = zipfile.ZipFile(io.BytesIO(put.body))
    start = json.loads(wheel.read("deploy_starter/start.json"))
    # The API takes no environment, so it is in the wheel, and the wheel is not kept.
    assert start["environment"] == {"MODEL": VALUE, "DASHSCOPE_API_KEY": "the-key-of-the-model"}
    assert start["port"] == 8080
    assert b'FC_RUN_CMD: "python3 /code/python/deploy_starter/main.py"' in wheel.read("deploy_starter/config.yml")
    assert wheel.read("deploy_starter/user_bundle/app/friday.py").decode() == AGENT
    assert os.listdir(tempfile.gettempdir()) == []
    assert (done.deploy_id, done["modelstudio_deploy_id"], done["workspace_id"]) == ("deploy-1", "deploy-1", "ws-1")
    assert done.url.startswith("https://bailian.console.aliyun.com/")
    assert (done["resource_name"], done["wheel_path"]) == ("friday", "")
    for secret in (SECRET, VALUE, "the-key-of-the-model", "signed-url-secret"):
        assert secret not in f"{steps} {done} {manager.modelstudio_config} {caplog.text}"


async def test_a_new_version_of_an_agent(cloud: Cloud, wheel: Path) -> None:
    done = await ModelstudioDeployManager().deploy(
        external_whl_path=wheel, agent_id="agent-1", telemetry_enabled=False
    )
    assert cloud.requests[-1].json == {
        "agentId": "agent-1",
        "sourceCodeName": wheel.name,
        "sourceCodeOssUrl": "lease-1",
        "telemetryEnabled": False,
    }
    assert cloud.leases["lease-1"] == content(wheel)
    assert (done["wheel_path"], done["resource_name"]) == (str(wheel), None)
    with pytest.raises(ConfigurationError, match="leave environment out"):
        await ModelstudioDeployManager().deploy(external_whl_path=wheel, environment={"A": "b"})


async def test_nothing_is_sent(cloud: Cloud, agent: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_ID")
    monkeypatch.setenv("DASHSCOPE_API_KEY", VALUE)
    done = await ModelstudioDeployManager().deploy(entrypoint=agent, skip_upload=True)
    made = Path(done["wheel_path"])
    assert made.parent == tmp_path / "home" / "builds"
    assert os.stat(made).st_mode & 0o077 == 0
    assert (done.deploy_id, done.url, cloud.requests) == ("", "", [])
    assert VALUE.encode() not in content(made)
    with pytest.raises(ConfigurationError, match="ALIBABA_CLOUD_ACCESS_KEY_ID is not set"):
        await ModelstudioDeployManager().deploy(entrypoint=agent)


async def test_the_upload_is_repeated(cloud: Cloud, wheel: Path) -> None:
    cloud.faults.append(Fault("PUT /lease/", 503, times=2))
    await ModelstudioDeployManager().deploy(external_whl_path=wheel)
    assert cloud.leases["lease-1"] == content(wheel)
    cloud.faults.append(Fault("PUT /lease/", 403))
    with pytest.raises(DeployError, match="uploading: the account has no right") as error:
        await ModelstudioDeployManager().deploy(external_whl_path=wheel)
    assert "signed-url-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"Success": False, "Code": "x", "Message": "y"}, "lends none .x y.; the account must be a member"),
        ({"success": False, "errorCode": "Quota", "errorMsg": SECRET}, r"refuses it: Quota \*\*\*"),
    ],
)
async def test_refusals_with_status_200(
    cloud: Cloud, wheel: Path, monkeypatch: Any, answer: dict[str, Any], says: str
) -> None:
    at = "datacenter" if "Success" in answer else "publish"
    right = Cloud._modelstudio

    def modelstudio(self: Cloud, request: Any, parts: list[str]) -> Any:
        return (200, {}, json.dumps(answer).encode()) if parts[-1] == at else right(self, request, parts)

    monkeypatch.setattr(Cloud, "_modelstudio", modelstudio)
    with pytest.raises(DeployError, match=says):
        await ModelstudioDeployManager().deploy(external_whl_path=wheel)


async def test_what_the_api_cannot_do_is_refused(cloud: Cloud) -> None:
    manager = ModelstudioDeployManager()
    for call in (
        manager.status("d"),
        manager.list(),
        manager.logs("d"),
        manager.scale("d", 2),
        manager.stop("d"),
    ):
        with pytest.raises(DeployError, match=r"ModelStudio.*(https://bailian|itself)"):
            await call
    assert cloud.requests == []
