//! The ledger on real databases: every scenario runs on SQLite and on PostgreSQL, where it makes sense.

mod brain;
mod faults;
mod place;
mod queries;
mod retention;
mod rows;
mod spool;
mod storm;
