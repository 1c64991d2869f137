/*
 * What a skeleton uses of the kernel's tools/testing/selftests/kvm/include/kvm_util.h and test_util.h, with the
 * same names and arguments, small enough to run the skeleton without a kernel tree.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/kvm.h>

#ifndef KVM_SET_USER_MEMORY_REGION2
#define KVM_MEM_GUEST_MEMFD (1UL << 2)
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#define KVM_CAP_USER_MEMORY2 231
#define KVM_CAP_GUEST_MEMFD 234
struct kvm_userspace_memory_region2 {
	__u32 slot, flags;
	__u64 guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
	__u32 guest_memfd, pad1;
	__u64 pad2[14];
};
struct kvm_create_guest_memfd { __u64 size, flags, reserved[6]; };
#endif

#define TEST_ASSERT(e, fmt, ...) do { \
	if (!(e)) { fprintf(stderr, "%s: " fmt "\n", #e, ##__VA_ARGS__); exit(254); } \
} while (0)
#define TEST_REQUIRE(f) do { if (!(f)) exit(4); } while (0)

struct kvm_vm { int fd, kvm_fd; };

static inline struct kvm_vm *vm_create_barebones(void)
{
	static struct kvm_vm vm;

	vm.kvm_fd = open("/dev/kvm", O_RDWR);
	vm.fd = ioctl(vm.kvm_fd, KVM_CREATE_VM, 0);
	TEST_ASSERT(vm.fd >= 0, "no VM");
	return &vm;
}

static inline void kvm_vm_free(struct kvm_vm *vm)
{
	close(vm->fd);
	close(vm->kvm_fd);
}

static inline int kvm_has_cap(long cap)
{
	int fd = open("/dev/kvm", O_RDWR), has = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	close(fd);
	return has;
}

#define __vm_ioctl(vm, cmd, arg) ioctl((vm)->fd, cmd, arg)

static inline int __vm_enable_cap(struct kvm_vm *vm, uint32_t cap, uint64_t arg0)
{
	struct kvm_enable_cap enable_cap = { .cap = cap, .args = { arg0 } };

	return __vm_ioctl(vm, KVM_ENABLE_CAP, &enable_cap);
}

static inline int __vm_create_guest_memfd(struct kvm_vm *vm, uint64_t size, uint64_t flags)
{
	struct kvm_create_guest_memfd gmem = { .size = size, .flags = flags };

	return __vm_ioctl(vm, KVM_CREATE_GUEST_MEMFD, &gmem);
}

static inline int __vm_set_user_memory_region(struct kvm_vm *vm, uint32_t slot, uint32_t flags,
					      uint64_t gpa, uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static inline int __vm_set_user_memory_region2(struct kvm_vm *vm, uint32_t slot, uint32_t flags,
					       uint64_t gpa, uint64_t size, void *hva,
					       uint32_t guest_memfd, uint64_t guest_memfd_offset)
{
	struct kvm_userspace_memory_region2 region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uintptr_t)hva, .guest_memfd = guest_memfd,
		.guest_memfd_offset = guest_memfd_offset,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &region);
}
