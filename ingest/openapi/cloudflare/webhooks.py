"""Operations on webhooks, which Vectorize lacks."""

from __future__ import annotations

from ingest.doors.cloudflare.webhooks import CreatedWebhook, ListedWebhook, NewWebhook
from ingest.openapi.cloudflare.envelope import (
    ACCOUNT,
    INDEX,
    NAME,
    TO_INDEX,
    WITH_BODY,
    answers,
    success,
)
from ingest.openapi.operation import Operation, Parameter, json_body

_WEBHOOK = Parameter(
    name="webhook",
    place="path",
    description="A webhook's id.",
    schema={"type": "string", "pattern": "^[0-9a-f]{32}$"},
)

OPERATIONS = (
    Operation(
        method="post",
        path=INDEX + "/webhooks",
        id="createWebhook",
        tag="webhooks",
        summary="Register a webhook",
        description="It is told of every mutation that becomes visible or fails from now on, signed as Standard Webhooks has it.",
        parameters=(ACCOUNT, NAME),
        body=json_body(NewWebhook, "Where to, and of what.", all={"url": "https://hooks.example.com/upwell"}),
        answers=answers(
            success(
                CreatedWebhook,
                "The only answer that tells the secret.",
                links={
                    "delete": (
                        "deleteWebhook",
                        {
                            "account": "$request.path.account",
                            "index": "$request.path.index",
                            "webhook": "$response.body#/result/id",
                        },
                    )
                },
            ),
            *TO_INDEX,
            507,
            *WITH_BODY,
        ),
    ),
    Operation(
        method="get",
        path=INDEX + "/webhooks",
        id="listWebhooks",
        tag="webhooks",
        summary="List webhooks, and how far each has come",
        parameters=(ACCOUNT, NAME),
        answers=answers(success({"type": "array", "items": ListedWebhook}, "The oldest first."), *TO_INDEX),
    ),
    Operation(
        method="delete",
        path=INDEX + "/webhooks/{webhook}",
        id="deleteWebhook",
        tag="webhooks",
        summary="Deregister a webhook",
        description="What is not on its way by now is never sent.",
        parameters=(ACCOUNT, NAME, _WEBHOOK),
        answers=answers(success({"type": "null"}, "It is gone."), *TO_INDEX),
    ),
)
