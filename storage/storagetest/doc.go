// Package storagetest holds what every store must pass, and stores for tests.
//
// Start with [Run], the conformance suite. [NewMemory] is a store in memory;
// [NewFaulty] makes the operations of any store fail by plan, and [Each] lets
// work meet a fault at every operation in turn.
package storagetest
