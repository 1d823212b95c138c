//! Four verbs between services: publish to the inboxes of gateways, emit to workers, read one's inbox, consume.
