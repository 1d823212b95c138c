-- How users have chosen to be shown, until they choose again. Apart from users, as last_seen is: choosing touches no lock
-- and no index of the account.
create table choices (
    user_id uuid primary key not null,
    -- 1 online, 2 dnd, 3 invisible.
    state smallint not null,
    -- Grows with each choice: its instant, or one more than before. Orders the choices of a user wherever they are told.
    version bigint not null
);
