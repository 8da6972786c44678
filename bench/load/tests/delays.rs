//! Checks that known delays are reported. In a test program of its own, so that no other test affects the timing.

#[test]
fn known_delays_are_reported() {
    let checks = load::self_check().expect("the server is our own");
    for check in &checks {
        println!("{check}");
    }
    let [closed, open, stall_intended, stall_actual, stall_longest] = &checks[..] else {
        panic!("checks were added: {checks:#?}");
    };
    for delayed in [closed, open] {
        // Only the lower bounds are checked here, because the machine may be busy. `load self-check` checks the upper
        // bounds on a quiet machine.
        let found = delayed.found_ms;
        assert!((20.0..100.0).contains(&found), "{delayed}");
    }
    assert!(stall_intended.found_ms >= 150.0, "{stall_intended}");
    assert!(stall_longest.found_ms >= 380.0, "{stall_longest}");
    assert!(
        stall_actual.found_ms < stall_intended.found_ms / 2.0,
        "{stall_actual}; {stall_intended}"
    );
}
