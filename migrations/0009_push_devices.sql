-- What is given up is looked at and sent again by operators.
create index pushes_dead on pushes (at) where outcome = 6;

-- When a device was last registered: what its provider says of an earlier time is not about this registration.
alter table push_devices add column registered_at bigint;
