// Package judge decides whether a new version, the canary, fails more often or is slower than the
// version that it replaces, the baseline, while both serve.
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
// The same wager finds a slow canary. A request is slow if it takes longer than 90 % of the
// baseline's did just before, and for the canary, longer than that by what [Settings].Slower
// allows. If the canary is slower by no more than that, at most as large a part of its requests
// is slow, so the first slow request of a client falls on it with at most the probability of its
// share.
//
// [Release] applies it to one release: it says when the share may grow and when it must
// become 0. It has no clock and no goroutine. Silence is no proof: without requests and
// time no share grows.
package judge
