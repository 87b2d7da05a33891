// Package release gives canary releases their share of the requests. A canary is a group of a
// service whose split has the share of that one group.
//
//	shares := release.NewShares(release.Options{Backing: keys, …})
//	shares.Restore(operator.State[Share]{})     // the shares in the file
//	c = shares.ApplyTo(c)                     // a configuration with the overrides
//	shares.Applied(configured, time.Now())    // it is in use
//	judge := release.NewJudge(release.JudgeOptions{Shares: shares, …})
//	judge.Run(ctx)
//	err := judge.Order(release.Order{Service: "star", Verb: release.Set, Share: 0.05})
//
// [Shares] keeps overrides: shares that a judge or an operator has set in place of the
// configuration's. Who uses them applies the configuration again when [Options].Changed is called.
// [Judge] compares the attempts of each canary with the attempts of the rest of its service, and
// gives shares by what it finds; the statistics are in package judge. A Judge only reads pools.
package release
