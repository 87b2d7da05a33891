// Package claim decides which of the routes that tags ask for are used: what the services may
// claim, which of two services keeps a route that both ask for, and which instances get the
// requests of a route if their tags differ, as during a release.
package claim
