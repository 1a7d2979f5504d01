/* Rust's standard library imports ProcessPrng from bcryptprimitives.dll, which Wine 8 does not have.
   This is that library, resting on the generator that Wine does have. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
    return SystemFunction036(buffer, (ULONG)length);
}
