//go:build !linux

package socket

import "syscall"

// An IdleSet is always empty: see idle_linux.go.
type IdleSet[C idleConn] struct{}

func NewIdleSet[C idleConn]() (*IdleSet[C], error) { return &IdleSet[C]{}, nil }
func (s *IdleSet[C]) Add(C, syscall.RawConn) bool  { return false }
func (s *IdleSet[C]) Take(C) bool                  { return false }
func (s *IdleSet[C]) Len() int                     { return 0 }
func (s *IdleSet[C]) Run()                         {}
func (s *IdleSet[C]) Close()                       {}
