//go:build !linux

package proxy

const hasIdleSet = false

func (p *testProxy) idleConnCount() int { return 0 }
