#![allow(clippy::unwrap_used)]

use super::*;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Newer {
    size: usize,
    first: u32,
    second: u32,
    third: u64,
}

// SAFETY: `repr(C)`, begins with its size, numbers only.
unsafe impl Versioned for Newer {
    const FIRST: usize = 16;
}

fn newer(size: usize) -> Newer {
    Newer {
        size,
        first: 1,
        second: 2,
        third: 3,
    }
}

#[test]
fn a_panic_is_a_status() {
    assert_eq!(call(|| panic!("a bug")), Status::Internal);
    assert_eq!(call(|| Ok(())), Status::Ok);
}

#[test]
fn a_call_from_a_callback_is_refused_and_the_next_is_not() {
    let from_within = callback(|| call(|| Ok(())));
    assert_eq!(from_within, Status::InCallback);
    assert_eq!(call(|| Ok(())), Status::Ok);
}

#[test]
fn an_older_callers_structure_is_filled_up_with_zeros() {
    // SAFETY: it is as large as it says.
    let taken = unsafe { take(&newer(16)) }.unwrap();
    assert_eq!((taken.first, taken.second, taken.third), (1, 2, 0));
}

#[test]
fn a_newer_callers_fields_must_be_unused() {
    let mut words = [0_u64; 5];
    words[0] = 40;
    let pointer = ptr::from_ref(&words).cast::<Newer>();
    // SAFETY: it is as large as it says.
    assert!(unsafe { take(pointer) }.is_ok());
    words[4] = 1;
    let pointer = ptr::from_ref(&words).cast::<Newer>();
    // SAFETY: it is as large as it says.
    let refused = unsafe { take(pointer) }.unwrap_err();
    assert_eq!(refused, Status::InvalidArgument);
}

#[test]
fn a_structure_without_a_sensible_size_is_refused() {
    for size in [0, 15, 4_097, usize::MAX] {
        // SAFETY: refused by its size before anything else is read.
        let refused = unsafe { take(&newer(size)) }.unwrap_err();
        assert_eq!(refused, Status::InvalidArgument, "{size}");
    }
    // SAFETY: null is allowed.
    assert!(unsafe { take::<Newer>(ptr::null()) }.is_err());
}

#[test]
fn an_older_caller_is_given_what_it_knows() {
    let mut out = newer(16);
    let value = Newer {
        size: 0,
        first: 7,
        second: 8,
        third: 9,
    };
    // SAFETY: it is as large as it says.
    unsafe { give(&value, &mut out) }.unwrap();
    assert_eq!((out.size, out.first, out.second, out.third), (16, 7, 8, 3));
}

#[test]
fn a_newer_caller_is_given_zeros_for_what_is_not_known_here() {
    let mut words = [u64::MAX; 6];
    words[0] = 40;
    let pointer = ptr::from_mut(&mut words).cast::<Newer>();
    // SAFETY: it is larger than it says.
    unsafe { give(&newer(0), pointer) }.unwrap();
    assert_eq!(words[2..], [3, 0, 0, u64::MAX]);
}

#[test]
fn text_is_cut_at_a_character_and_always_ends() {
    let mut buffer = [0x7f_u8; 8];
    let write = |text: &str, buffer: &mut [u8], size| {
        // SAFETY: no more than the buffer has.
        unsafe { write_text(text, buffer.as_mut_ptr().cast(), size) };
    };
    write("abcü", &mut buffer, 5);
    assert_eq!(&buffer, b"abc\0\x7f\x7f\x7f\x7f");
    write("abcü", &mut buffer, 6);
    assert_eq!(&buffer, b"abc\xc3\xbc\0\x7f\x7f");
    write("x", &mut buffer, 1);
    assert_eq!(buffer[0], 0);
    write("x", &mut buffer, 0);
    // SAFETY: null is allowed.
    unsafe { write_text("x", ptr::null_mut(), 9) };
}
