use proptest::prelude::*;

use super::{config, descriptor};
use crate::{ConfigSpace, SavedConfigError};

proptest! {
    /// Whatever was written, what is restored reads and moves as what was saved.
    #[test]
    fn what_was_saved_comes_back(
        before in proptest::collection::vec((0_u16..0x140, any::<u32>(), 1_usize..=4), 0..40),
        after in proptest::collection::vec((0_u16..0x140, any::<u32>(), 1_usize..=4), 0..10),
    ) {
        let mut one = config();
        for (offset, value, length) in before {
            let _ = one.write(offset, &value.to_le_bytes()[..length]);
        }
        let text = serde_json::to_string(&one.save()).unwrap();
        let saved = serde_json::from_str(&text).unwrap();

        let mut other = ConfigSpace::restore(&descriptor(), &saved).unwrap();

        prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
        for (offset, value, length) in after {
            let data = &value.to_le_bytes()[..length];
            prop_assert_eq!(one.write(offset, data), other.write(offset, data));
        }
        prop_assert_eq!(one.save(), other.save());
    }
}

#[test]
fn what_is_another_functions_is_refused() {
    let mut saved = config().save();
    saved.registers.pop();
    let refused = ConfigSpace::restore(&descriptor(), &saved);
    assert_eq!(refused.unwrap_err(), SavedConfigError);

    let mut saved = config().save();
    saved.image.push(0);
    assert!(ConfigSpace::restore(&descriptor(), &saved).is_err());
}
