// Python's arithmetic of numbers.

#include "engine/jinja/arithmetic.h"

#include <cmath>
#include <cstdint>

#include "engine/jinja/operators.h"

namespace swaa::jinja {
namespace {

[[noreturn]] void FailOverflow() { Fail("an integer needs more than 64 bits"); }

int64_t FloorDivide(int64_t left, int64_t right) {
  if (right == 0) Fail("division by zero");
  if (right == -1) {
    if (left == INT64_MIN) FailOverflow();
    return -left;
  }
  const int64_t quotient = left / right;
  return left % right != 0 && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

int64_t Modulo(int64_t left, int64_t right) {
  if (right == 0) Fail("division by zero");
  if (right == -1) return 0;
  const int64_t rest = left % right;
  return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
}

double FloatModulo(double left, double right) {
  if (right == 0) Fail("float modulo by zero");
  const double rest = std::fmod(left, right);
  if (rest == 0) return std::copysign(0.0, right);
  return (rest < 0) != (right < 0) ? rest + right : rest;
}

double FloatFloorDivide(double left, double right) {
  if (right == 0) Fail("division by zero");
  const double rest = std::fmod(left, right);
  double quotient = (left - rest) / right;
  if (rest != 0 && (rest < 0) != (right < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, left / right);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

int64_t IntegerPower(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent % 2 == 1) result = CheckedMultiply(result, base);
    exponent /= 2;
    if (exponent > 0) base = CheckedMultiply(base, base);
  }
  return result;
}

}  // namespace

int64_t CheckedAdd(int64_t left, int64_t right) {
  int64_t result;
  if (__builtin_add_overflow(left, right, &result)) FailOverflow();
  return result;
}

int64_t CheckedMultiply(int64_t left, int64_t right) {
  int64_t result;
  if (__builtin_mul_overflow(left, right, &result)) FailOverflow();
  return result;
}

Value IntegerArithmetic(Operator op, int64_t left, int64_t right) {
  switch (op) {
    case Operator::kAdd:
      return CheckedAdd(left, right);
    case Operator::kSubtract: {
      int64_t result;
      if (__builtin_sub_overflow(left, right, &result)) FailOverflow();
      return result;
    }
    case Operator::kMultiply:
      return CheckedMultiply(left, right);
    case Operator::kDivide:
      if (right == 0) Fail("division by zero");
      return static_cast<double>(left) / static_cast<double>(right);
    case Operator::kFloorDivide:
      return FloorDivide(left, right);
    case Operator::kModulo:
      return Modulo(left, right);
    default:
      break;
  }
  if (right >= 0) return IntegerPower(left, right);
  if (left == 0) Fail("0 cannot be raised to a negative power");
  return std::pow(static_cast<double>(left), static_cast<double>(right));
}

Value FloatArithmetic(Operator op, double left, double right) {
  switch (op) {
    case Operator::kAdd:
      return left + right;
    case Operator::kSubtract:
      return left - right;
    case Operator::kMultiply:
      return left * right;
    case Operator::kDivide:
      if (right == 0) Fail("float division by zero");
      return left / right;
    case Operator::kFloorDivide:
      return FloatFloorDivide(left, right);
    case Operator::kModulo:
      return FloatModulo(left, right);
    default:
      break;
  }
  if (left == 0 && right < 0) Fail("0.0 cannot be raised to a negative power");
  if (left < 0 && right != std::floor(right)) Fail("complex numbers are not supported");
  const double result = std::pow(left, right);
  if (std::isinf(result) && std::isfinite(left) && std::isfinite(right)) {
    Fail("the result of ** is too large");
  }
  return result;
}

}  // namespace swaa::jinja
