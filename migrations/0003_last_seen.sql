-- When users were last seen, as presence-service told. Apart from users: a row here is written each time somebody goes
-- offline, and that touches no lock and no index of the account.
create table last_seen (
    user_id uuid primary key not null,
    at bigint not null
);
