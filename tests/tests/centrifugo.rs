//! Centrifugo beside `sockeye serve`: the same frames, and the same answers but for the listed differences.

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn answers_are_those_of_centrifugo_but_for_the_listed_differences() {
    sockeye_tests::centrifugo::compare().await;
}
