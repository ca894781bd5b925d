//! Runs one seed and prints its trace: `seed SEED [FAULT]`.

use potemkin_sim::{Options, planted, run};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().and_then(|seed| seed.parse().ok());
    let name = arguments.next();
    let options = Options {
        verbose: true,
        planted: planted::names()
            .into_iter()
            .find(|known| Some(*known) == name.as_deref()),
    };
    let outcome = run(seed.unwrap_or_default(), &options);
    println!("{}", outcome.trace.unwrap_or_default());
}
