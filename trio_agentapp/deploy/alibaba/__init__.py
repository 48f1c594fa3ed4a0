"""Puts apps into the serverless services of Alibaba Cloud: ModelStudio, AgentRun and Function Compute.

They are tested against the requests that the official SDKs send, not in the cloud.
"""
