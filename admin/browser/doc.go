// Package browser tests the admin page as an operator sees it: in a headless
// Chromium, with sluice's own program and a real Consul behind it. The browser is also a
// client of sluice, for WebSocket over HTTP/2.
//
//	.ci/run browser              # installs Debian's chromium if there is no browser
//	go -C admin/browser test .   # with the chromium or Chrome that is there
//
// It is a module of its own, so that the protocol to drive a browser is not
// among the product's dependencies. No Chromium outlives the tests, however
// they end, on Linux.
package browser
