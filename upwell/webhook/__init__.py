"""Webhooks: telling an operator's URL of each mutation that became visible or failed. At least once, in the log's order.

addresses.py says which URLs may be called, signing.py how a message proves where it comes from, model.py what is kept of a webhook,
ledger.py where, messages.py what is told, delivery.py what one webhook is owed, and registry.py what there is of them in one index.
Nothing here speaks HTTP: workers/webhooks.py delivers, and the front end's door registers.
"""

from upwell.webhook.delivery import Delivery as Delivery
from upwell.webhook.delivery import Due as Due
from upwell.webhook.ledger import Ledger as Ledger
from upwell.webhook.model import Event as Event
from upwell.webhook.model import Message as Message
from upwell.webhook.model import Progress as Progress
from upwell.webhook.model import Webhook as Webhook
from upwell.webhook.registry import Webhooks as Webhooks
