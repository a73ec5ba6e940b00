//! What every backend promises, held to it by the same tests.

mod queue;
