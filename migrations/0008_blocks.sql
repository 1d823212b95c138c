-- Blocks.

create table blocks (
    -- Who blocks.
    user_id uuid not null,
    blocked uuid not null,
    at bigint not null,
    primary key (user_id, blocked)
);

-- Of a member of a direct room: the other one blocks. Kept beside what every send reads anyway, under the same lock.
-- Null is no.
alter table members add column blocked boolean;
