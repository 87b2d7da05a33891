// Package judge decides whether a new version, the canary, fails more often than the version that it
// replaces, the baseline, while both serve.
//
// The decision is a sequential test. Clients are assigned to the canary at random, with
// the probability of its share. So if the canary is no worse, the first failure of a
// client falls on the canary with just this probability, whatever the rate of failures
// is and however it changes. [Evidence] is a wager against that: what a player owns who
// starts with 1 and bets, at fair odds, that failures fall on the canary more often. While
// the canary is no worse, the chance that it ever reaches 1,000 is at most 1 in 1,000
// (Ville's inequality), at any number of looks and with any change of the share. See Wald,
// Sequential Tests of Statistical Hypotheses (1945), and Lindon and Malek, Anytime-Valid
// Inference for Multinomial Count Data (2022).
//
// [Release] applies it to one release: it says when the share may grow and when it must
// become 0. It has no clock and no goroutine. Silence is no proof: without requests and
// time no share grows.
package judge
