"""An agent that keeps itself in the registries of the environment."""

from trio_agentapp import AgentApp
from trio_agentapp.wires import AgentCardWithRuntimeConfig

app = AgentApp(app_name="Listed", a2a_config=AgentCardWithRuntimeConfig())


@app.query()
async def chat():
    yield "hello"


if __name__ == "__main__":
    app.run()
